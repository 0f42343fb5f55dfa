"""The demo runs the main job from a fresh start, and leaves nothing running."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import tifffile

from support.cli import CommandLine

REPOSITORY = Path(__file__).resolve().parents[2]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_demo_finds_the_nuclei(tmp_path: Path) -> None:
    image = REPOSITORY / "data" / "nuclei.tif"
    result = CommandLine(tmp_path).run("demo", "--image", image, "--output", "out", timeout_s=110)
    assert result.returncode == 0, result.stderr
    found = re.search(r"Found (\d+) objects", result.stdout)
    assert found is not None
    assert 50 <= int(found[1]) <= 70
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"nuclei-result.zip", "labels.tif", "overlay.png", "report.html"} <= written
    assert tifffile.imread(tmp_path / "out" / "labels.tif").shape == tifffile.imread(image).shape


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
