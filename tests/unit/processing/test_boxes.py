"""Label images of objects with a box and a mask each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from redis_consumer.processing import retinanet_semantic_to_label_image, retinanet_to_label_image

SIDE = 100
Box = tuple[float, float, float, float]


def outputs(boxes: Sequence[Box], scores: Sequence[float] | None = None, masks: Any = None) -> list[Any]:
    """The outputs of a model for one image. By default each mask fills its box, and each score is 0.9."""
    count = len(boxes)
    full = np.ones((count, 14, 14)) if masks is None else np.asarray(masks)
    return [
        np.array(boxes, np.float32).reshape(1, count, 4),
        np.array([0.9] * count if scores is None else scores, np.float32).reshape(1, count),
        np.zeros((1, count)),
        np.stack([np.zeros_like(full), full], axis=-1)[np.newaxis].astype(np.float32),
    ]


def label(*boxes: Box, **options: Any) -> Any:
    return retinanet_to_label_image(outputs(boxes), SIDE, SIDE, **options)[0]


def test_objects_apart_keep_their_masks() -> None:
    labels = label((10, 5, 30, 25), (50, 60, 75, 80))
    assert (labels.shape, labels.dtype.name) == ((SIDE, SIDE), "int32")
    expected = np.zeros((SIDE, SIDE), np.int32)
    expected[5:25, 10:30], expected[60:80, 50:75] = 1, 2
    np.testing.assert_array_equal(labels, expected)


def test_a_low_score_is_no_object() -> None:
    found = retinanet_to_label_image(outputs([(10, 5, 30, 25), (50, 60, 75, 80)], [0.5, 0.51]), SIDE, SIDE)
    assert found.max() == 1
    assert found[0, 70, 60] == 1


def test_a_mask_is_resized_to_its_box() -> None:
    mask = np.zeros((1, 14, 14))
    mask[0, :, :7] = 1
    labels = retinanet_to_label_image(outputs([(20, 20, 48, 48)], masks=mask), SIDE, SIDE)[0]
    expected = np.zeros((SIDE, SIDE), np.int32)
    expected[20:48, 20:34] = 1
    np.testing.assert_array_equal(labels, expected)


def test_objects_that_share_pixels_divide_them() -> None:
    labels = label((10, 10, 40, 40), (35, 10, 65, 40))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[10:40, 10:35] == 1).all()
    assert (labels[10:40, 40:65] == 2).all()
    shared = labels[10:40, 35:40]
    assert (shared[:, 0] == 1).all()
    assert (shared[:, -1] == 2).all()
    assert (labels > 0).sum() == 30 * 55


def test_objects_that_overlap_too_many_are_dropped() -> None:
    # The middle one overlaps both others by a third; these overlap it and themselves only.
    labels = label((10, 10, 40, 40), (25, 10, 55, 40), (40, 10, 70, 40))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[10:40, 10:40] == 1).all()
    assert (labels[10:40, 40:70] == 2).all()


def test_isolated_objects_are_numbered_first() -> None:
    labels = label((10, 10, 40, 40), (35, 10, 65, 40), (70, 70, 95, 95))
    assert labels[80, 80] == 1
    assert {labels[20, 12], labels[20, 60]} == {2, 3}


def test_an_object_within_others_has_no_seeds() -> None:
    labels = label((10, 10, 60, 60), (20, 20, 50, 50), (70, 10, 95, 40), (80, 10, 99, 40))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels[10:60, 10:60] == 1).all()
    assert [labels[20, 72], labels[20, 97]] == [2, 3]


def test_equal_masks_are_one_object() -> None:
    labels = label((10, 10, 40, 40), (10, 10, 40, 40))
    assert set(np.unique(labels)) == {0, 1}
    assert (labels == 1).sum() == 900


def test_small_objects_are_dropped_and_the_others_renumbered() -> None:
    labels = label((10, 10, 19, 19), (50, 50, 60, 60))
    assert labels[14, 14] == 0
    assert labels[55, 55] == 1


@pytest.mark.parametrize("box", [(-10, -10, 20, 20), (80, 80, 1e9, 130), (30, 30, 30, 40), (40, 40, 20, 60)])
def test_boxes_beyond_the_image_are_cut(box: Box) -> None:
    labels = label(box, (45, 45, 65, 65))
    assert labels[55, 55] in {1, 2}
    assert labels.shape == (SIDE, SIDE)


def test_an_image_without_objects_is_blank() -> None:
    assert retinanet_to_label_image(outputs([]), SIDE, SIDE).max() == 0


def test_only_the_last_outputs_count() -> None:
    found = retinanet_to_label_image([np.zeros((1, 3)), *outputs([(10, 10, 40, 40)])], SIDE, SIDE)
    assert found.max() == 1


@pytest.mark.parametrize("wrong", [outputs([(1, 1, 9, 9)])[1:], [np.zeros((1, 1, 4))] * 4, []])
def test_other_outputs_are_refused(wrong: list[Any]) -> None:
    with pytest.raises(ValueError, match="outputs end with the shapes"):
        retinanet_to_label_image(wrong, SIDE, SIDE)


def semantic(*regions: tuple[slice, slice]) -> Any:
    """Three classes of distance; each region has an innermost part."""
    classes = np.zeros((1, SIDE, SIDE, 3), np.float32)
    classes[..., 0] = 1
    for rows, columns in regions:
        classes[0, rows, columns] = (0, 1, 0)
        inner = (slice(rows.start + 4, rows.stop - 4), slice(columns.start + 4, columns.stop - 4))
        classes[0, inner[0], inner[1]] = (0, 0, 1)
    return classes


def test_regions_besides_objects_are_labelled() -> None:
    regions = semantic((slice(10, 30), slice(10, 30)), (slice(60, 85), slice(60, 85)))
    labels = retinanet_semantic_to_label_image([*outputs([(10, 10, 30, 30)]), regions])[0]
    assert (labels[10:30, 10:30] == 1).all()
    assert (labels[60:85, 60:85] == 2).all()
    assert (labels > 0).sum() == 400 + 625


def test_regions_with_a_long_outline_are_dropped() -> None:
    regions = semantic((slice(10, 22), slice(2, 98)), (slice(60, 85), slice(60, 85)))
    labels = retinanet_semantic_to_label_image([*outputs([]), regions])[0]
    assert labels[15, 50] == 0
    assert labels[70, 70] == 1


def test_a_semantic_map_is_needed() -> None:
    with pytest.raises(ValueError, match=r"classes of pixels \(B, Y, X, C\)"):
        retinanet_semantic_to_label_image(outputs([(1, 1, 9, 9)]))
