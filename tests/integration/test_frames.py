"""A stack is processed in groups of frames: the same result, in memory that doesn't depend on their number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from redis_consumer import settings, testing
from redis_consumer.consumers import ImageFileConsumer, defaults
from redis_consumer.segmentation import frames
from redis_consumer.testing import JobRun
from support.worker import ROOT

Array = npt.NDArray[Any]

FRAMES, SIDE_PX = 5, 96
PLANE = tifffile.imread(ROOT / "data" / "nuclei.tif")
STACK = np.stack([np.roll(PLANE, 40 * number, axis=1)[:SIDE_PX, :SIDE_PX] for number in range(FRAMES)])
CHANNELS = np.stack([STACK, STACK[::-1]], axis=1)


def plain(path: Path) -> dict[str, str]:
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "TYX"})
    return {}


def compressed(path: Path) -> dict[str, str]:
    tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib", rowsperstrip=16)
    return {}


def depths_and_channels(path: Path) -> dict[str, str]:
    tifffile.imwrite(path, CHANNELS, imagej=True, metadata={"axes": "ZCYX"})
    return {"channels": "1"}


def ordered_array(path: Path) -> dict[str, str]:
    np.save(path.with_suffix(".npy"), STACK)
    return {"dimension_order": "BXY"}


def batch(path: Path) -> dict[str, str]:
    np.save(path.with_suffix(".npy"), np.moveaxis(CHANNELS, 1, -1))
    return {"channels": "0"}


def resized(path: Path) -> dict[str, str]:
    return {**plain(path), "scale": "0.5"}


def cut(path: Path) -> dict[str, str]:
    return {**plain(path), "cuts": "2", "field_size": "17"}


#: Runs a job of one frame, then one of many, and prints by how many bytes the second one raised the peak.
MEASURE = """
import resource, sys
import numpy as np
from redis_consumer import testing
from redis_consumer.consumers import ImageFileConsumer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def run(path):
    done = testing.run(
        ImageFileConsumer, path, model=lambda tiles: tiles, scale="1", preprocess_function="normalize"
    )
    assert done.status == "done", done.reason

run(sys.argv[1])
before = peak()
run(sys.argv[2])
print(peak() - before)
"""


WRITERS = (plain, compressed, depths_and_channels, ordered_array, batch, resized, cut)


def run(path: Path, **fields: str) -> JobRun:
    job_fields: dict[str, Any] = {"scale": "1", **fields}
    (file,) = path.parent.glob(f"{path.stem}.*")
    done = testing.run(ImageFileConsumer, file, **job_fields)
    assert done.status == "done", done.reason
    return done


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("group", [1, 2])
def test_groups_of_frames_give_the_result_of_all_at_once(
    write: Callable[[Path], dict[str, str]], group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = write(tmp_path / "stack.tif")
    whole = run(tmp_path / "stack.tif", **fields)
    monkeypatch.setattr(frames, "GROUP_BYTES", group * 4 * SIDE_PX**2)
    parted = run(tmp_path / "stack.tif", **fields)
    assert parted.files == whole.files
    assert parted.fields["objects"] == whole.fields["objects"]
    assert int(whole.fields["objects"]) > FRAMES
    assert parted.statuses == whole.statuses
    assert set(parted.timings) == set(whole.timings)
    assert parted.fields["progress"] == "100"


def test_a_model_that_gives_numbers_has_its_channels_written_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(tmp_path / "stack.tif")
    sent = []

    def answer(tiles: Array) -> dict[str, Array]:
        sent.append(len(tiles))
        return {"prediction_0": tiles * 2, "prediction_1": np.concatenate([tiles, tiles + 1], axis=-1)}

    monkeypatch.setattr(frames, "GROUP_BYTES", 2 * 4 * SIDE_PX**2)
    done = testing.run(ImageFileConsumer, tmp_path / "stack.tif", model=answer, scale="1")
    assert done.status == "done", done.reason
    expected = [STACK * 2.0, STACK, STACK + 1.0]
    for number, stack in enumerate(expected):
        np.testing.assert_array_equal(done.outputs[f"stack_feature_{number}.tif"], stack)
    assert sent == [2, 2, 1]
    assert "objects" not in done.fields


def test_scale_and_label_are_detected_on_the_same_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "stack.tif")
    for kind, sample in (("scale", 2), ("label", 3)):
        monkeypatch.setenv(f"{kind.upper()}_DETECT_ENABLED", "true")
        monkeypatch.setenv(f"{kind.upper()}_RESHAPE_SIZE", "40")
        monkeypatch.setenv(f"{kind.upper()}_DETECT_SAMPLE", str(sample))
    seen: list[tuple[str, Array]] = []

    def asked() -> tuple[list[tuple[str, Array]], dict[str, str]]:
        seen.clear()

        def note(name: str, answer: Callable[[Array], Array]) -> Callable[[Array], Array]:
            def model(tiles: Array) -> Array:
                seen.append((name, tiles.copy()))
                return answer(tiles)

            return model

        models = {
            "ScaleDetection": note("scale", lambda tiles: tiles.mean(axis=(1, 2)) * 0 + 0.5),
            "LabelDetection": note("label", lambda tiles: np.tile([[1.0, 0.0, 0.0]], (len(tiles), 1))),
            "NuclearSegmentation": note("model", lambda tiles: tiles),
        }
        done = testing.run(
            ImageFileConsumer, tmp_path / "stack.tif", model=models, model_name="", postprocess_function="none"
        )
        return [each for each in seen if each[0] != "model"], dict(done.fields)

    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "none", lambda outputs: outputs)
    whole, fields = asked()
    monkeypatch.setattr(frames, "GROUP_BYTES", 4 * SIDE_PX**2)
    parted, parted_fields = asked()
    assert len(whole) == len(parted) > FRAMES
    for (name, crop), (parted_name, parted_crop) in zip(whole, parted, strict=True):
        assert name == parted_name
        np.testing.assert_array_equal(crop, parted_crop)
    assert [fields[name] for name in ("scale", "label")] == [parted_fields[name] for name in ("scale", "label")]


def test_a_function_of_ones_own_still_sees_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "stack.tif")
    monkeypatch.setattr(frames, "GROUP_BYTES", 4 * SIDE_PX**2)
    monkeypatch.setitem(
        settings.PROCESSING_FUNCTIONS["post"], "brightest", lambda outputs: outputs[0].max(axis=0, keepdims=True)
    )
    done = testing.run(
        ImageFileConsumer,
        tmp_path / "stack.tif",
        model=lambda tiles: tiles,
        scale="1",
        postprocess_function="brightest",
    )
    assert done.status == "done", done.reason
    np.testing.assert_array_equal(done.outputs["stack_feature_0.tif"], STACK.max(axis=0))


def test_a_class_that_analyzes_gets_all_frames_and_segments_them_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(ImageFileConsumer):
        def analyze(self, image: Array, job: Any) -> dict[str, Any]:
            assert image.shape == (FRAMES, SIDE_PX, SIDE_PX, 1)
            return {"labels": self.segment(image, job)}

    plain(tmp_path / "stack.tif")
    whole = run(tmp_path / "stack.tif")
    monkeypatch.setattr(frames, "GROUP_BYTES", 4 * SIDE_PX**2)
    done = testing.run(Counting, tmp_path / "stack.tif", scale="1")
    assert done.status == "done", done.reason
    assert done.files == whole.files


def test_channels_are_compared_before_a_pixel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(
        tmp_path / "many.tif", np.zeros((240, 64, 64), np.uint8), photometric="minisblack", metadata={"axes": "CYX"}
    )
    monkeypatch.setattr("redis_consumer.images.reading.OpenedImage.read", lambda _: pytest.fail("pixels were read"))
    done = testing.run(ImageFileConsumer, tmp_path / "many.tif", scale="1", channels="0,1")
    assert done.status == "failed"
    assert "many.tif: field channels names 2 channels, model NuclearSegmentation" in done.reason


def test_peak_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    side_px, count = 1024, 24
    plane = np.zeros((side_px, side_px), np.uint16)
    plane[100:200, 100:200] = 1000
    for name, stack in (("one", plane[np.newaxis]), ("many", np.stack([plane] * count))):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", stack, photometric="minisblack", compression="zlib", metadata={"axes": "TYX"}
        )
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "one.tif"), str(tmp_path / "many.tif")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # A group has four frames of this size; all frames take 96 MiB as float32, several times.
    assert grown < 12 * frames.GROUP_BYTES // 2


@pytest.mark.parametrize(("limit_mb", "status"), [("1", "failed"), ("3", "done")])
def test_a_job_over_max_job_mb_fails_before_a_pixel_is_read(
    limit_mb: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((192, 192), np.uint16))  # 12 times 0.147 MB, and what is sent
    monkeypatch.setenv("MAX_JOB_MB", limit_mb)
    if status == "failed":
        monkeypatch.setattr("redis_consumer.images.reading.OpenedImage.read", lambda _: pytest.fail("pixels were read"))
    done = testing.run(ImageFileConsumer, tmp_path / "image.tif", model=lambda tiles: tiles, scale="1")
    assert done.status == status
    if status == "failed":
        assert "InvalidImage: image.tif: needs about 2 MB of memory, allowed are 1 MB (MAX_JOB_MB)" in done.reason
        assert "12 x 0.1 MB for frames of 192 x 192 px with 1 channel(s)" in done.reason


def test_the_limit_of_a_job_is_its_part_of_the_containers_memory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.machine.usable_bytes", lambda: 12 * 10**9)
    with settings.read_anew():
        monkeypatch.setenv("CONCURRENCY", "2")
        monkeypatch.setenv("THREADS", "3")
        assert defaults.max_job_bytes() == 2 * 10**9


def test_few_channels_of_many_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.arange(40, dtype=np.uint8)[:, np.newaxis, np.newaxis] * np.ones((1, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "many.tif", planes, photometric="minisblack", metadata={"axes": "CYX"})
    with monkeypatch.context() as patched:
        patched.setattr("redis_consumer.segmentation.frames.GROUP_BYTES", 1 << 14)
        patched.setattr("redis_consumer.images.reading.OpenedImage.read", lambda _: pytest.fail("all were read"))
        done = testing.run(
            ImageFileConsumer, tmp_path / "many.tif", model=lambda tiles: tiles[..., :1], scale="1", channels="7,3"
        )
    assert done.status == "done", done.reason
    np.testing.assert_array_equal(done.outputs["many_feature_0.tif"], planes[7])
