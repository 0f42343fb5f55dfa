"""The demo runs the main job from a fresh start, and leaves nothing running."""

from __future__ import annotations

import csv
import re
import signal
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from support.cli import CommandLine

REPOSITORY = Path(__file__).resolve().parents[2]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_demo_finds_the_nuclei(tmp_path: Path) -> None:
    image = REPOSITORY / "data" / "nuclei.tif"
    result = CommandLine(tmp_path).run("demo", "--image", image, "--output", "out")
    assert result.returncode == 0, result.stderr
    found = re.search(r"Found (\d+) objects", result.stdout)
    assert found is not None
    assert 50 <= int(found[1]) <= 70
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"nuclei-result.zip", "labels.tif", "overlay.png", "report.html"} <= written
    assert tifffile.imread(tmp_path / "out" / "labels.tif").shape == tifffile.imread(image).shape
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<strong>[01]\.[0-9]{2}</strong><span>quality", report)


def test_broken_settings_of_the_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_PORT=wrong\n")
    (tmp_path / "empty.tif").touch()
    results = [tmp_path / "build" / "demo" / name for name in ("report.html", "labels.tif", "empty-result.zip")]
    results[0].parent.mkdir(parents=True)
    for path in results:
        path.touch()
    result = CommandLine(tmp_path).run("demo", "--image", "empty.tif", REDIS_PORT="wrong", RESULT_URLS="wrong")
    assert result.returncode == 1
    assert "InvalidImage: empty.tif: " in result.stderr
    assert not any(path.exists() for path in results), "an earlier run's results were left"


def test_an_image_that_the_demo_would_overwrite_is_left_alone(tmp_path: Path) -> None:
    image = tmp_path / "labels.tif"
    image.write_bytes(b"pixels")
    result = CommandLine(tmp_path).run("demo", "--image", image, "--output", ".")
    assert result.returncode == 2
    assert "choose another --output" in result.stderr
    assert image.read_bytes() == b"pixels"


def test_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "cells.tif").write_bytes(b"pixels")
    demo = CommandLine(tmp_path).start("demo", "--image", "cells.tif")
    assert demo.stderr is not None
    assert demo.stderr.readline().startswith("cells.tif: new")
    children = children_of(demo.pid)
    assert len(children) == 2
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert not any(child.is_running() for child in children)


def test_without_redis_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "cells.tif").write_bytes(b"pixels")
    result = CommandLine(tmp_path).run("demo", "--image", "cells.tif", REDIS_SERVER="/nowhere")
    assert result.returncode == 2
    assert "REDIS_SERVER = '/nowhere'" in result.stderr


def test_a_folder_has_results_and_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    image = tifffile.imread(REPOSITORY / "data" / "nuclei.tif")
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(folder / name, image[:256, :256])
    options = ("--channels", "0", "--outputs", "table,rois", "--scale", "0.5", "--output", "out")
    result = CommandLine(tmp_path).run("demo", "--image", folder, *options)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"Found \d+ objects in [ab]\.tif", result.stdout)) == 2
    with (tmp_path / "out" / "cells.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"a.tif", "b.tif"}


@pytest.mark.slow
def test_an_archive_and_a_movie_are_done(tmp_path: Path) -> None:
    image = tifffile.imread(REPOSITORY / "data" / "nuclei.tif")[:256, :256]
    tifffile.imwrite(
        tmp_path / "m.tif", np.stack([np.roll(image, step, 0) for step in range(3)]), photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "a.tif", image)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "well/a.tif")
    for name, options in (("p.zip", ()), ("m.tif", ("--movie",))):
        done = CommandLine(tmp_path).run("demo", "--image", name, "--scale", "0.5", *options)
        assert done.returncode == 0, done.stderr
        assert re.search(rf"Found [1-9]\d* objects in {name}", done.stdout)
