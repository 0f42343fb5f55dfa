from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.processing import normalization
from redis_consumer.processing.blocks import Window, plan_blocks
from redis_consumer.processing.whole_image import FITS, Sampler, fit

Array = npt.NDArray[Any]


def image(*, flat: bool = False) -> Array:
    pixels = np.random.default_rng(2).gamma(2, 300, (1, 90, 70, 2)).astype(np.float32)
    pixels[0, :20, :, 1] = 0
    if flat:
        pixels[..., 0] = 7
        pixels[..., 1] = 0
    return pixels


def cut(array: Array, window: Window) -> Array:
    rows, columns = window
    return array[:, rows, columns]


def in_parts(names: list[str], whole: Array, options: dict[str, dict[str, Any]] | None = None) -> Array:
    """Fit on a sample, apply to the cores of blocks, and put them together."""
    sampler = Sampler((whole.shape[1], whole.shape[2], whole.shape[3]))
    grid = plan_blocks(whole.shape[1:3], 32, 8)
    for block in grid:
        sampler.add(block.core, cut(whole, block.core))
    change = fit(names, sampler, options or {})
    result = np.empty(whole.shape, np.float32)
    for block in grid:
        part = change(cut(whole, block.window), block.window)
        assert part.dtype == np.float32
        cut(result, block.core)[:] = cut(part, block.inner)
    return result


CASES: dict[str, tuple[Callable[..., Array], dict[str, Any]]] = {
    "normalize": (normalization.normalize, {}),
    "percentile_normalize": (normalization.percentile_normalize, {"low": 2.0, "high": 97.0}),
    "percentile_threshold": (normalization.percentile_threshold, {"percentile": 90.0}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_flat", [False, True])
def test_an_image_in_parts_gives_what_the_whole_one_gives(name: str, is_flat: bool) -> None:
    function, options = CASES[name]
    whole = image(flat=is_flat)
    np.testing.assert_allclose(
        in_parts([name], whole, {name: options}), function(whole, **options), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("options", [{}, {"kernel_size": 40}])
def test_contrast_is_equalised_as_in_a_whole_image(options: dict[str, Any]) -> None:
    noise = np.random.default_rng(6).random((1, 360, 300, 1))
    whole = (ndimage.gaussian_filter(noise, (0, 5, 5, 0)) + np.linspace(0, 0.1, 300)[:, None]).astype(np.float32)
    expected = normalization.histogram_normalization(whole, **options)
    difference = np.abs(in_parts(["histogram_normalization"], whole, {"histogram_normalization": options}) - expected)
    assert difference.mean() < 0.01
    assert difference.max() < 0.06


def test_a_part_at_another_scale_is_equalised_alike() -> None:
    whole = ndimage.gaussian_filter(np.random.default_rng(6).random((1, 300, 300, 1)), (0, 9, 9, 0)).astype(np.float32)
    sampler = Sampler((300, 300, 1))
    window = (slice(100, 200), slice(0, 60))
    sampler.add((slice(0, 300), slice(0, 300)), whole)
    change = fit(["phase_preprocess"], sampler, {}, scale=2)
    larger = change(cut(whole, window).repeat(2, axis=1).repeat(2, axis=2), window)
    assert np.abs(larger[:, ::2, ::2] - change(cut(whole, window), window)).mean() < 0.01


@pytest.mark.parametrize("value", [0, 7])
def test_a_flat_plane_has_no_contrast(value: float) -> None:
    assert not in_parts(["histogram_normalization"], np.full((1, 90, 70, 2), value, np.float32)).any()


def test_each_function_that_is_offered_is_tested() -> None:
    assert set(FITS) == {*CASES, "histogram_normalization", "phase_preprocess"}


def test_functions_run_in_their_order() -> None:
    expected = normalization.normalize(normalization.percentile_threshold(image()))
    joined = in_parts(["Percentile_Threshold", "", "normalize"], image())
    np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)


def test_no_functions_change_nothing() -> None:
    np.testing.assert_array_equal(in_parts([], image()), image())


def test_a_nearly_empty_plane_is_stretched_by_its_extremes() -> None:
    whole = np.zeros((1, 90, 70, 2), np.float32)
    whole[0, 3, 3] = 5
    expected = normalization.percentile_normalize(whole)
    np.testing.assert_array_equal(in_parts(["percentile_normalize"], whole), expected)


@pytest.mark.parametrize("shape", [(90, 70), (64, 33), (1, 200)])
@pytest.mark.parametrize("max_px", [1, 50, 1000, 10_000])
def test_a_sample_is_the_same_however_the_image_is_cut(shape: tuple[int, int], max_px: int) -> None:
    whole = np.random.default_rng(3).random((1, *shape, 1), dtype=np.float32)
    samples = []
    for block_px in (7, 32, 200):
        sampler = Sampler((*shape, 1), max_px)
        for block in plan_blocks(shape, block_px, 0):
            sampler.add(block.core, cut(whole, block.core))
        samples.append(sampler.sample)
    assert samples[0][..., 0].size <= max_px
    for sample in samples[1:]:
        np.testing.assert_array_equal(sample, samples[0])


def test_a_function_that_cannot_run_in_parts_is_refused_in_words() -> None:
    with pytest.raises(InvalidJob, match=r"^function unknown: .* percentile_normalize"):
        fit(["unknown"], Sampler((90, 70, 2)), {})


@pytest.mark.parametrize("options", [{"low": 90.0, "high": 10.0}, {"unknown": 1}])
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelMismatch, match="^function percentile_normalize: "):
        fit(["percentile_normalize"], Sampler((90, 70, 2)), {"percentile_normalize": options})
