"""ImageJ opens our ROI sets and fills the pixels of the labels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from redis_consumer.outputs.cells import LabelImages, Window
from redis_consumer.outputs.files import write_outputs

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "ReadRois.java"


def imagej() -> Path:
    """Find the library of ImageJ, which `make imagej` brings, or Debian's package `imagej`."""
    places = (ROOT / ".tools" / "imagej" / "ij.jar", Path("/usr/share/java/ij.jar"))
    found = next((place for place in places if place.is_file()), None)
    if found is None or shutil.which("java") is None or shutil.which("javac") is None:
        pytest.skip("there is no ImageJ with a Java compiler for this test; run `make imagej`")
    return found


@pytest.mark.slow
def test_imagej_opens_every_roi_with_the_pixels_of_its_label(tmp_path: Path) -> None:
    library = imagej()
    noise = ndimage.gaussian_filter(np.random.default_rng(5).random((300, 400)), 2)
    labels = ndimage.label(noise > np.quantile(noise, 0.6))[0]
    labels[2, 2], labels[-2, -2] = 9000, 9000  # of two parts

    def read(_: int, window: Window) -> Any:
        return np.asarray(labels[window])

    [path] = write_outputs(["rois"], LabelImages((1, 300, 400), read), tmp_path / "a")
    command = ["java", "-Djava.awt.headless=true", "-cp", str(library), str(PROGRAM), str(path), "400", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == len(np.unique(labels)) - 1
    assert {kind for _, kind, _, _ in rows} == {"Traced", "Composite"}
    for name, _, count, places in rows:
        pixels = np.flatnonzero(labels == int(name))
        assert (int(count), int(places)) == (len(pixels), pixels.sum())
