"""Network outputs become the label images that the definitions ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from redis_consumer.processing.labels import _smooth, deep_watershed, pixelwise, watershed

Array = npt.NDArray[Any]
Outputs = list[Array]

#: Probabilities on a coarse grid: ties and flat places, where algorithms go wrong, are common.
PROBABILITIES = st.integers(0, 8).map(lambda eighths: eighths / 8)


def class_maps(channels: int) -> st.SearchStrategy[Array]:
    sides = st.tuples(st.integers(0, 3), st.integers(1, 16), st.integers(1, 16), st.just(channels))
    return hnp.arrays(np.float32, sides, elements=PROBABILITIES)


@st.composite
def output_pairs(draw: st.DrawFn) -> Outputs:
    both = draw(class_maps(2))
    return [both[..., :1], both[..., 1:]]


def discs(*centres: tuple[float, float], radius: float = 8, shape: tuple[int, int] = (40, 60)) -> tuple[Array, Array]:
    """Inner distance in 0..1 and foreground, (Y, X) each, of discs that may overlap."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    depth = np.max([1 - np.hypot(y - cy, x - cx) / radius for cy, cx in centres], axis=0).clip(0)
    return depth.astype(np.float32), (depth > 0).astype(np.float32)


def unequal_pair() -> tuple[Array, Array]:
    """Two discs that touch, the right one a little less deep."""
    peaks, foreground = discs((20, 20), (20, 34))
    peaks[20, 34] -= 0.05
    return peaks, foreground


def as_outputs(*pairs: tuple[Array, Array]) -> Outputs:
    return [np.stack(maps)[..., np.newaxis] for maps in zip(*pairs, strict=True)]


def assert_numbered(labels: Array) -> None:
    """Each batch item holds the labels 1..n, all of them, and is int32 with one channel."""
    assert labels.dtype == np.int32
    assert labels.shape[-1] == 1
    for item in labels:
        present = np.unique(item)
        np.testing.assert_array_equal(present[present > 0], np.arange(1, item.max(initial=0) + 1))


def assert_connected(labels: Array) -> None:
    for item in labels[..., 0]:
        for label in range(1, item.max(initial=0) + 1):
            assert ndimage.label(item == label)[1] == 1


class TestPixelwise:
    @settings(max_examples=40)
    @given(class_maps(4), st.integers(0, 20))
    def test_labels_are_numbered_connected_and_large_enough(self, prediction: Array, min_size: int) -> None:
        labels = pixelwise(prediction, threshold=0.5, min_size=min_size)
        assert_numbered(labels)
        assert_connected(labels)
        assert all(np.bincount(item.ravel())[1:].min(initial=min_size) >= min_size for item in labels)

    @settings(max_examples=25)
    @given(class_maps(3))
    def test_without_a_size_limit_the_interior_is_covered_exactly(self, prediction: Array) -> None:
        labels = pixelwise(prediction, threshold=0.5, min_size=0)
        np.testing.assert_array_equal(labels[..., 0] > 0, prediction[..., 1] > 0.5)

    def test_regions_that_touch_by_a_corner_are_two(self) -> None:
        prediction = np.zeros((1, 20, 20, 4), np.float32)
        prediction[0, :10, :10, 2] = prediction[0, 10:, 10:, 2] = 1
        assert pixelwise(prediction).max() == 2

    def test_fifty_pixels_stay_and_forty_nine_go(self) -> None:
        prediction = np.zeros((1, 1, 100, 3), np.float32)
        prediction[0, 0, :50, 1] = prediction[0, 0, 51:, 1] = 1
        labels = pixelwise(prediction)
        assert labels[0, 0, 0, 0] == 1
        assert not labels[0, 0, 50:].any()

    def test_the_threshold_itself_is_outside(self) -> None:
        assert not pixelwise(np.full((1, 9, 9, 3), 0.75), threshold=0.75).any()


class TestWatershed:
    @staticmethod
    def distance_bins(*centres: tuple[float, float]) -> Array:
        """Three bins (Y, X, 3): background, rim, core."""
        depth, _ = discs(*centres)
        core, rim = np.clip(2 * depth - 0.4, 0, 1), (depth > 0) * 0.5
        return np.stack([(depth <= 0).astype(np.float32), rim, core], axis=-1).astype(np.float32)

    @settings(max_examples=40)
    @given(class_maps(4))
    def test_labels_are_numbered_and_lie_on_foreground(self, image: Array) -> None:
        labels = watershed(np.repeat(np.repeat(image, 4, axis=1), 4, axis=2), min_distance=2)
        assert_numbered(labels)
        is_foreground = np.argmax(image, axis=-1).repeat(4, axis=1).repeat(4, axis=2) > 0
        assert not (labels[..., 0] > 0)[~is_foreground].any()

    def test_two_touching_discs_are_parted_between_their_centres(self) -> None:
        labels = watershed(self.distance_bins((20, 20), (20, 34))[np.newaxis], min_distance=5)[0, ..., 0]
        assert labels.max() == 2
        assert labels[20, 22] != labels[20, 32]

    def test_a_nucleus_at_the_border_is_found(self) -> None:
        assert watershed(self.distance_bins((0, 20))[np.newaxis]).max() == 1

    def test_seeds_that_are_too_faint_grow_nothing(self) -> None:
        image = self.distance_bins((20, 20))[np.newaxis]
        assert not watershed(image, threshold_abs=2).any()

    def test_small_regions_go(self) -> None:
        image = np.zeros((1, 20, 20, 2), np.float32)
        image[..., 0] = 0.5
        image[0, 5:12, 5:12, 1] = 1
        assert not watershed(image, min_distance=2).any()


@pytest.mark.parametrize("function", [pixelwise, watershed])
class TestClassMaps:
    def test_an_image_without_batch_keeps_its_rank(self, function: Any) -> None:
        image = np.random.default_rng(0).random((24, 24, 3)).repeat(4, axis=0)
        np.testing.assert_array_equal(function(image), function(image[np.newaxis])[0])

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 0), (1, 2, 4, 4, 3)])
    def test_a_wrong_shape_is_refused_in_words(self, function: Any, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"has the shape \(.*\); wanted \(B, Y, X, C\) or \(Y, X, C\)"):
            function(np.zeros(shape))

    def test_values_that_are_no_numbers_are_refused(self, function: Any) -> None:
        with pytest.raises(ValueError, match="holds NaN or infinity"):
            function(np.full((1, 4, 4, 3), np.nan))

    def test_a_single_channel_is_the_interior_and_no_series_of_distances(self, function: Any) -> None:
        interior = np.pad(np.ones((8, 8), np.float32), 4)[..., np.newaxis]
        if function is watershed:
            with pytest.raises(ValueError, match=r"has the shape \(16, 16, 1\); wanted .* with C >= 2"):
                watershed(interior)
        else:
            np.testing.assert_array_equal(pixelwise(interior), interior)

    def test_an_empty_batch_gives_an_empty_batch(self, function: Any) -> None:
        assert function(np.zeros((0, 4, 5, 3))).shape == (0, 4, 5, 1)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1, 2.3, 9])
@pytest.mark.parametrize("sides", [(70, 90), (1, 5), (33, 2)])
def test_smoothing_is_a_gaussian_filter(sigma: float, sides: tuple[int, int]) -> None:
    image = np.random.default_rng(3).random(sides, dtype=np.float32)
    expected = ndimage.gaussian_filter(image, sigma, mode="nearest")
    np.testing.assert_allclose(_smooth(image, sigma), expected, atol=1e-6)


class TestDeepWatershed:
    @settings(max_examples=40)
    @given(output_pairs(), st.integers(1, 5), st.sampled_from(["h_maxima", "peak_local_max"]))
    def test_labels_are_numbered_and_lie_above_the_threshold(
        self, outputs: Outputs, radius: int, algorithm: str
    ) -> None:
        labels = deep_watershed(outputs, radius=radius, interior_smooth=0, maxima_algorithm=algorithm)
        assert_numbered(labels)
        assert not (labels > 0)[outputs[1] <= 0.01].any()

    @settings(max_examples=25)
    @given(output_pairs())
    def test_the_place_in_the_batch_does_not_matter(self, outputs: Outputs) -> None:
        forward = deep_watershed(outputs, radius=2)
        backward = deep_watershed([output[::-1] for output in outputs], radius=2)
        np.testing.assert_array_equal(forward, backward[::-1])

    def test_two_touching_discs_are_parted_at_their_neck(self) -> None:
        labels = deep_watershed(as_outputs(discs((20, 20), (20, 34))))[0, ..., 0]
        assert labels.max() == 2
        np.testing.assert_array_equal(labels[20, [15, 25, 29, 39]], [1, 1, 2, 2])

    def test_a_label_without_holes_is_connected(self) -> None:
        assert_connected(deep_watershed(as_outputs(discs((20, 20), (20, 34)), discs((5, 5), (30, 50)))))

    def test_a_dip_less_deep_than_the_threshold_does_not_part(self) -> None:
        outputs = as_outputs(unequal_pair())
        assert deep_watershed(outputs, maxima_threshold=0.9, radius=3).max() == 1
        assert deep_watershed(outputs, maxima_threshold=0.1, radius=3).max() == 2

    def test_of_two_peaks_within_the_radius_the_higher_one_stays(self) -> None:
        assert deep_watershed(as_outputs(unequal_pair()), radius=15).max() == 1

    def test_foreground_without_a_peak_has_no_label(self) -> None:
        _, foreground = discs((20, 20))
        assert not deep_watershed(as_outputs((np.zeros_like(foreground), foreground))).any()

    def test_indices_choose_the_outputs(self) -> None:
        peaks, foreground = as_outputs(discs((20, 20), (20, 34)))
        other = np.ones_like(peaks)
        chosen = deep_watershed([other, foreground, peaks], maxima_index=2, interior_index=1)
        np.testing.assert_array_equal(chosen, deep_watershed([peaks, foreground]))

    @pytest.mark.parametrize("algorithm", ["h_maxima", "peak_local_max"])
    def test_smoothing_the_peak_map_joins_noisy_peaks(self, algorithm: str) -> None:
        peaks, foreground = discs((20, 30), radius=18)
        peaks += np.random.default_rng(0).normal(0, 0.2, peaks.shape).astype(np.float32) * foreground
        outputs = as_outputs((peaks, foreground))
        options: dict[str, Any] = {"radius": 3, "maxima_algorithm": algorithm}
        assert deep_watershed(outputs, maxima_smooth=4, **options).max() == 1
        assert deep_watershed(outputs, maxima_smooth=0, **options).max() > 1

    def test_expansion_grows_the_foreground_by_a_square(self) -> None:
        peaks, foreground = np.zeros((2, 21, 21), np.float32)
        peaks[10, 10] = foreground[10, 10] = 1
        labels = deep_watershed(as_outputs((peaks, foreground)), interior_smooth=0, pixel_expansion=3)
        assert labels.sum() == 49

    def test_erosion_takes_one_ring_at_a_time(self) -> None:
        square = np.zeros((21, 21), np.float32)
        square[5:16, 5:16] = 1
        outputs = as_outputs((square * discs((10, 10), shape=(21, 21))[0], square))
        sizes = [int(deep_watershed(outputs, interior_smooth=0, label_erosion=rings).sum()) for rings in range(3)]
        assert sizes == [11**2, 9**2, 7**2]

    def test_small_objects_go_and_the_rest_is_renumbered(self) -> None:
        small, large = discs((8, 8), radius=4), discs((24, 40), radius=12)
        outputs = as_outputs((small[0] + large[0], small[1] + large[1]))
        assert deep_watershed(outputs, interior_smooth=0).max() == 2
        labels = deep_watershed(outputs, interior_smooth=0, small_objects_threshold=100)
        assert labels[0, 24, 40, 0] == labels.max() == 1

    def test_holes_up_to_the_threshold_are_filled(self) -> None:
        peaks, foreground = discs((20, 30), radius=15)
        foreground[18:20, 35:37] = 0
        foreground[25:28, 25:28] = 0
        outputs = as_outputs((peaks, foreground))
        labels = deep_watershed(outputs, interior_smooth=0, fill_holes_threshold=4)[0, ..., 0]
        assert labels[18:20, 35:37].all()
        assert not labels[25:28, 25:28].any()

    def test_a_hole_is_filled_with_the_small_label_inside(self) -> None:
        peaks, foreground = discs((20, 30), radius=15)
        foreground[18:23, 20:25] = 0
        peaks[20, 22] = foreground[20, 22] = 1
        outputs = as_outputs((peaks, foreground))
        assert deep_watershed(outputs, radius=2, interior_smooth=0).max() == 2
        assert deep_watershed(outputs, radius=2, interior_smooth=0, fill_holes_threshold=25).max() == 1

    @pytest.mark.parametrize("factor", [1, 2, 5])
    def test_shares_of_the_median_object_mean_the_same_at_every_scale(self, factor: int) -> None:
        shape = (40 * factor, 60 * factor)
        nuclei = discs((10 * factor, 10 * factor), (10 * factor, 40 * factor), radius=8 * factor, shape=shape)
        debris = discs((30 * factor, 30 * factor), (30 * factor, 50 * factor), radius=2 * factor, shape=shape)
        outputs = as_outputs((np.maximum(nuclei[0], debris[0]), np.maximum(nuclei[1], debris[1])))
        shares: dict[str, Any] = {"radius": "0.25x", "maxima_smooth": "0.05x", "interior_smooth": "0.03x"}
        assert deep_watershed(outputs, **shares).max() == 4
        assert deep_watershed(outputs, **shares, small_objects_threshold="0.2x").max() == 2

    def test_a_radius_of_several_objects_joins_them(self) -> None:
        outputs = as_outputs(unequal_pair())
        assert deep_watershed(outputs, radius="0.2x").max() == 2
        assert deep_watershed(outputs, radius="3x").max() == 1

    def test_shares_of_no_object_remove_nothing(self) -> None:
        outputs = as_outputs((np.zeros((9, 9), np.float32), np.zeros((9, 9), np.float32)))
        assert not deep_watershed(outputs, radius="0.2x", small_objects_threshold="0.2x").any()

    @pytest.mark.parametrize("text", ["", "3", "x", "-1x", "nanx", "infx", "0.1 y"])
    def test_a_text_that_is_no_share_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"radius is .*; wanted a number, or a share of the median object"):
            deep_watershed(as_outputs(discs((20, 20))), radius=text)

    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            ("min_distance", "radius"),
            ("detection_threshold", "maxima_threshold"),
            ("distance_threshold", "interior_threshold"),
        ],
    )
    def test_older_names_mean_the_newer_ones(self, older: str, newer: str) -> None:
        outputs = as_outputs(unequal_pair())
        value: Any = 20 if newer == "radius" else 0.9
        old, new = deep_watershed(outputs, **{older: value}), deep_watershed(outputs, **{newer: value})
        np.testing.assert_array_equal(old, new)
        assert (new != deep_watershed(outputs)).any()

    @pytest.mark.parametrize(
        "shapes",
        [
            [],
            [(1, 4, 4, 1)],
            [(4, 4, 1), (4, 4, 1)],
            [(1, 4, 4, 1), (1, 4, 5, 1)],
            [(1, 4, 4, 0), (1, 4, 4, 0)],
        ],
    )
    def test_wrong_outputs_are_refused_in_words(self, shapes: Sequence[tuple[int, ...]]) -> None:
        with pytest.raises(ValueError, match=r"outputs has the shapes \[.*\]; wanted two or more of \(B, Y, X, C\)"):
            deep_watershed([np.zeros(shape) for shape in shapes])

    def test_an_index_without_output_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no output 2"):
            deep_watershed(as_outputs(discs((20, 20))), maxima_index=2)

    def test_an_unknown_algorithm_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'magic'; wanted one of h_maxima, peak_local_max"):
            deep_watershed(as_outputs(discs((20, 20))), maxima_algorithm="magic")

    def test_values_that_are_no_numbers_are_refused(self) -> None:
        peaks, foreground = as_outputs(discs((20, 20)))
        with pytest.raises(ValueError, match=r"outputs\[-1\] holds NaN or infinity"):
            deep_watershed([peaks, np.full_like(foreground, np.inf)])
