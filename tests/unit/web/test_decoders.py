"""Child processes that decode files: what they answer, and how those end that take too much."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import ConsumerError, InvalidImage, OutOfResources
from redis_consumer.web.view.decoders import DecoderLimits, decode
from support import attack_formats


def asked(path: Path, folder: Path, limits: DecoderLimits | None = None, **changes: Any) -> dict[str, Any]:
    folder.mkdir()
    request = {"path": str(path), "folder": str(folder), "name": path.name, "order": "", "field": "", "is_whole": True}
    return decode("make_image", {**request, "max_bytes": 1 << 28, **changes}, limits or DecoderLimits(), name=path.name)


def test_a_call_is_answered(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(600, dtype=np.uint8).reshape(20, 30))
    assert asked(tmp_path / "a.tif", tmp_path / "view") == {"is_complete": True}
    assert json.loads((tmp_path / "view" / "facts.json").read_text())["width"] == 30


def test_a_file_that_is_no_image_has_the_reason_of_its_reader(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(InvalidImage, match=r"a\.tif: is an HDF5 file .* export it as OME-TIFF"):
        asked(tmp_path / "a.tif", tmp_path / "view")


def test_memory_is_limited(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8000, 8000), np.float64))
    with pytest.raises(OutOfResources, match="needs more than the 64 MB allowed"):
        asked(tmp_path / "a.npy", tmp_path / "view", DecoderLimits(memory_bytes=64 << 20))


def test_time_is_limited(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(OutOfResources, match="within 0.5 s"):
        asked(tmp_path / "a.tif", tmp_path / "view", DecoderLimits(time_s=0.5))


def test_the_size_of_files_is_limited(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 60_000, (600, 600)).astype(np.uint16))
    with pytest.raises(OutOfResources, match=r"a\.tif: .*disk"):
        asked(tmp_path / "a.tif", tmp_path / "view", DecoderLimits(file_bytes=100_000))


@pytest.mark.parametrize("name", ["tile of CZI that unpacks", "XML of LIF", "sides of JPEG XL"])
def test_hostile_files_end_with_a_reason(tmp_path: Path, name: str) -> None:
    attack = attack_formats.ATTACKS[name]
    path = tmp_path / f"a{attack.suffix}"
    attack.write(path)
    with pytest.raises(ConsumerError, match=r"a\.tif: "):
        asked(path, tmp_path / "view", DecoderLimits(memory_bytes=1 << 30, time_s=60))
