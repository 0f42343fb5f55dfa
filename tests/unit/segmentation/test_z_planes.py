"""Z stacks: projections, single planes, and labels through the planes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.images.calibration import Calibration
from redis_consumer.job import Job
from redis_consumer.options import ImageLimits
from redis_consumer.segmentation.frames import joined, open_frames
from redis_consumer.segmentation.large_image import open_large
from redis_consumer.segmentation.z_planes import LinkedPlanes

STACK = np.random.default_rng(1).integers(0, 255, (2, 3, 16, 20), np.uint8)


def job(z: str, **fields: str) -> Job:
    return Job("j", {"input_file_name": "uploads/a.tif", "z": z, **fields})


def write(folder: Path, array: Any, axes: str) -> Path:
    tifffile.imwrite(folder / "a.tif", array, photometric="minisblack", imagej=True, metadata={"axes": axes})
    return folder / "a.tif"


@pytest.mark.parametrize(
    ("z", "wanted"),
    [
        ("", STACK.reshape(6, 16, 20)),
        ("each", STACK.reshape(6, 16, 20)),
        ("link", STACK.reshape(6, 16, 20)),
        ("max", STACK.max(axis=1)),
        ("MEAN", STACK.astype(np.float32).mean(axis=1)),
        ("1", STACK[:, 1]),
    ],
)
def test_planes_become_frames_as_the_job_says(tmp_path: Path, z: str, wanted: Any) -> None:
    path = write(tmp_path, STACK, "TZYX")
    with open_frames(path, job(z), ImageLimits(), takes_parts=False) as frames:
        assert frames is not None
        np.testing.assert_allclose(frames.all()[..., 0], wanted, rtol=1e-6)
        np.testing.assert_allclose(frames.read(1, 2)[0, ..., 0], wanted[1], rtol=1e-6)
        assert frames.calibration.frames == len(wanted)
    with open_large(path, job(z), ImageLimits()) as image:
        assert image.shape == (len(wanted), 16, 20, 1)
        np.testing.assert_allclose(image.read(1, (slice(2, 9), slice(3, 7)))[0, ..., 0], wanted[1, 2:9, 3:7], rtol=1e-6)


@pytest.mark.parametrize(
    ("z", "axes", "array", "message"),
    [
        ("max", "TYX", STACK[:, 0], r"a\.tif: field z: max needs an axis Z, but its frames are 2 along T"),
        ("link", "TYX", STACK[:, 0], r"field z: link needs an axis Z"),
        ("1", "YX", STACK[0, 0], r"field z: 1 needs an axis Z, but it is one plane"),
        ("3", "ZYX", STACK[0], r"field z: there is no plane 3, the image has 3 \(0 to 2\)"),
    ],
)
def test_what_has_no_such_planes_is_refused(tmp_path: Path, z: str, axes: str, array: Any, message: str) -> None:
    path = write(tmp_path, array, axes)
    refused = pytest.raises(InvalidImage, match=message)
    with refused, open_frames(path, job(z), ImageLimits(), takes_parts=False):
        pass


@pytest.mark.parametrize("z", ["max", "mean", "link", "0"])
def test_one_plane_fits_every_choice(tmp_path: Path, z: str) -> None:
    with open_frames(write(tmp_path, STACK[0, 0], "YX"), job(z), ImageLimits(), takes_parts=False) as frames:
        assert frames is not None
        assert frames.shape == (1, 16, 20, 1)


@pytest.mark.parametrize("z", ["top", "-1", "1.5", "9" * 9])
def test_an_unknown_choice_is_refused(z: str) -> None:
    with pytest.raises(InvalidJob, match="field z: .* give each, max, mean, link, or the number of a plane, from 0"):
        _ = job(z).z


def test_a_projection_may_have_more_planes_than_frames_are_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, STACK, "TZYX")
    limits = ImageLimits(max_frames=2)
    with open_frames(path, job("max"), limits, takes_parts=False) as frames:
        assert frames is not None
        assert frames.shape[0] == 2
    with pytest.raises(InvalidImage, match="6 frames"), open_frames(path, job(""), limits, takes_parts=False):
        pass


def test_an_object_has_one_label_through_the_planes_of_its_stack() -> None:
    planes = np.zeros((6, 8, 12, 1), np.int32)
    planes[0, 1:4, 1:4], planes[0, 5:8, 1:4] = 2, 1
    planes[1, 1:4, 2:5], planes[1, 1:4, 8:11] = 1, 5
    planes[2, 1:4, 8:11] = 1
    planes[3, 1:4, 1:4] = 7  # the next stack
    planes[4, 1:4, 1:4] = 3
    stacks = LinkedPlanes(Calibration((("T", 2), ("Z", 3))))
    groups = iter([[planes[:2]], [planes[2:4]], [planes[4:]]])
    linked = np.concatenate([arrays[0] for arrays in stacks.linked(groups)])[..., 0]
    found = [sorted(np.unique(plane)) for plane in linked]
    assert found == [[0, 1, 2], [0, 2, 3], [0, 3], [0, 1], [0, 1], [0]]
    assert stacks.objects == 4
    np.testing.assert_array_equal(linked > 0, planes[..., 0] > 0)


def groups_that_are_not_held(dtype: Any) -> Iterator[list[Any]]:
    """Three groups of a frame each. Each checks that the ones before it are gone."""
    made: list[weakref.ref[Any]] = []
    for number in range(3):
        assert all(ref() is None for ref in made)
        group = [np.full((1, 4, 4, 1), number + 1, dtype)]
        made.append(weakref.ref(group[0]))
        yield [group.pop()]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_linked_planes_hold_no_group_while_the_next_one_is_made(dtype: Any) -> None:
    stacks = LinkedPlanes(Calibration(axes=(("Z", 3),)))
    assert list(map(len, stacks.linked(groups_that_are_not_held(dtype)))) == [1, 1, 1]


def test_joined_groups_are_not_held_while_the_next_one_is_made() -> None:
    (whole,) = joined(groups_that_are_not_held(np.float32), 3)
    assert whole[:, 0, 0, 0].tolist() == [1, 2, 3]
