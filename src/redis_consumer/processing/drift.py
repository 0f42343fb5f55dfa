"""Measures and corrects the movement of the stage between the frames of a movie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shift = tuple[int, int]

#: Standard deviation of the smoothing. With a larger value, the peaks of neighbouring cells merge.
SMOOTHING_PX = 2.0


def measure_shift(before: Array, after: Array) -> Shift:
    """Return rows and columns by which the scene has moved between two frames, in whole pixels, by phase correlation.

    The shift is the peak of the inverse transform of the normalised cross-power spectrum (Kuglin and Hines 1975, Proc.
    IEEE Int. Conf. Cybernetics and Society 163). A Hann window suppresses correlation of the image borders. The result
    is smoothed before the peak is searched, because the cells also move.

    Args:
        before: (Y, X) real image.
        after: (Y, X) real image of the same size. The largest shift that can be found is half of its sides.

    >>> scene = np.random.default_rng(1).random((64, 64))
    >>> measure_shift(scene[4:54, 6:56], scene[1:51, 8:58])
    (3, -2)
    """
    from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq

    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in before.shape))
    spectra = [rfft2((frame.astype(np.float32) - frame.mean()) * window) for frame in (before, after)]
    cross = spectra[1] * np.conj(spectra[0])
    magnitude = np.abs(cross)
    phase = np.divide(cross, magnitude, out=np.zeros_like(cross), where=magnitude > 0)
    height, width = before.shape
    frequency = np.add.outer(fftfreq(height) ** 2, rfftfreq(width) ** 2)
    peak = irfft2(phase * np.exp(-2 * (np.pi * SMOOTHING_PX) ** 2 * frequency), before.shape)
    place = np.unravel_index(int(np.argmax(peak)), before.shape)
    row, column = (int(at) - side if at > side // 2 else int(at) for at, side in zip(place, before.shape, strict=True))
    return row, column


def correct_drift(X: Array, y: Array | None = None) -> Array | tuple[Array, Array]:  # noqa: N803 - the contract's name
    """Align each frame of a movie and its labels to the first frame (contract, section 5.3).

    Args:
        X: (T, Y, X, ...) images.
        y: labels of the same rank, moved with the images.

    Returns:
        The images, or images and labels, each in its dtype. Pixels without a source are 0.

    Raises:
        ValueError: there are fewer than three axes, or the ranks differ.
    """
    if X.ndim < 3 or (y is not None and y.ndim != X.ndim):
        raise ValueError(f"movie of shape {X.shape}: need (frames, y, x), and labels of the same rank")
    planes = X if X.ndim == 3 else X.reshape(*X.shape[:3], -1).mean(axis=-1)
    offset = np.zeros(2, int)
    images, labels = X.copy(), None if y is None else y.copy()
    for frame in range(1, len(X)):
        offset += measure_shift(planes[frame - 1], planes[frame])
        for movie in (images, labels):
            if movie is not None:
                movie[frame] = _moved(movie[frame], -offset)
    return images if labels is None else (images, labels)


def _moved(frame: Array, offset: npt.NDArray[np.int_]) -> Array:
    """Return a frame moved by whole pixels. Pixels without a source are 0."""
    result = np.zeros_like(frame)
    target = tuple(slice(max(step, 0), side + min(step, 0)) for step, side in zip(offset, frame.shape, strict=False))
    source = tuple(slice(max(-step, 0), side + min(-step, 0)) for step, side in zip(offset, frame.shape, strict=False))
    result[target] = frame[source]
    return result
