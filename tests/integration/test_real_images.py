"""Real image files that a package ships: each one is read as another library shows it, or refused with a reason.

The files are those of Pillow's source distribution, whose licence is MIT-CMU. ``make test-all`` fetches it by
the package manager. None of them is copied into this repository.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits, open_image, to_batch

FOLDER = Path(__file__).parents[2] / ".tools" / "real-images"
LEAST = 100
#: Greys of one picture by two libraries are at least so similar. Scales of values may differ, as of 4 and 8 bits.
SIMILAR = 0.98
#: Files that the other library shows in another way, and why.
OTHERWISE = {
    "lab.tif": "colours of CIELAB are channels",
    "lab-green.tif": "colours of CIELAB are channels",
    "lab-red.tif": "colours of CIELAB are channels",
    "hopper.Lab.tif": "colours of CIELAB are channels",
    "8bit.s.tif": "signed values are shown as unsigned ones",
    "tiff_16bit_RGBa.tiff": "colours are multiplied by transparency",
    "tiff_strip_planar_16bit_RGBa.tiff": "colours are multiplied by transparency",
    "tiff_tiled_planar_16bit_RGBa.tiff": "colours are multiplied by transparency",
    "rdf.tif": "a palette with transparency",
    "tiff_wrong_bits_per_sample_3.tiff": "its tags contradict one another",
}
Array = npt.NDArray[Any]


def grey(array: Array) -> Array:
    """(Y, X) of an image, colours averaged."""
    return array.astype(float) if array.ndim == 2 else array[..., :3].astype(float).mean(-1)


def shown(path: Path, notes: list[str]) -> list[Array]:
    """Greys of the first picture as Pillow shows it: as it is stored, and in the orientation that its tags name.

    If a note says that an orientation of a TIFF isn't applied, also in all others.
    """
    with Image.open(path) as picture:
        stored = picture if picture.mode in ("I", "F", "I;16", "I;16B") else picture.convert("RGB")
        greys = [grey(np.asarray(each)) for each in (stored, ImageOps.exif_transpose(stored))]
    if any("is not applied" in note for note in notes):
        greys += [np.rot90(each, turns) for each in (greys[0], greys[0][:, ::-1]) for turns in range(4)]
    return greys


def is_same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    if np.ptp(found) == 0 or np.ptp(expected) == 0:
        return bool(np.ptp(found) == np.ptp(expected) or np.abs(found - expected).max() <= 3)
    return bool(np.corrcoef(found.ravel(), expected.ravel())[0, 1] >= SIMILAR)


def outcome(path: Path) -> str:
    """How a file ends: done, refused, wrong, or unknown to the other library."""
    try:
        with open_image(path, limits=ImageLimits(max_frames=60), name=path.name) as opened:
            image = opened.read()
    except InvalidImage as error:
        is_readable = str(error).startswith(f"{path.name}: ") and ";" in str(error)
        return "refused" if is_readable else f"refused by {error}"
    try:
        expected = shown(path, opened.notes)
    except Exception:  # noqa: BLE001 - it may refuse what is read here
        return "unknown"
    if path.name in OTHERWISE or any(is_same(grey(to_batch(image)[0]), each) for each in expected):
        return "done"
    return "wrong"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_files_are_read_as_others_show_them_or_refused() -> None:
    files = [path for path in sorted(FOLDER.rglob("Tests/images/**/*")) if path.is_file()]
    if not files and not os.environ.get("CI"):
        pytest.skip("make real-images fetches them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {path: outcome(path) for path in files}
    counts = Counter((path.suffix.lower(), end) for path, end in found.items())
    for (suffix, end), count in sorted(counts.items()):
        print(f"{suffix or 'no suffix'} {end}: {count}")  # noqa: T201 - the table of the run
    assert [(path.name, end) for path, end in found.items() if end not in ("done", "refused", "unknown")] == []
    assert sum(end == "done" for end in found.values()) >= LEAST
