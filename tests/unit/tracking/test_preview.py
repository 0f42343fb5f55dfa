"""The animation of tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redis_consumer.tracking.linking import link_movie
from redis_consumer.tracking.preview import MOST_FRAMES, SIDE_PX, write_preview
from support.movies import Scene, simulate, true_labels


def test_trails_are_drawn_over_the_movie(tmp_path: Path) -> None:
    movie = simulate(Scene(cells=10, frames=12, side_px=128, seed=3))
    tracking = link_movie(true_labels(movie))
    write_preview(tmp_path / "tracks.gif", (movie.image(number) for number in range(12)), tracking)
    with Image.open(tmp_path / "tracks.gif") as picture:
        assert (picture.format, picture.size, getattr(picture, "n_frames", 1)) == ("GIF", (128, 128), 12)
        picture.seek(11)
        colors = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(colors, axis=-1) > 60).sum() > 50


@pytest.mark.parametrize("frames", [1, 2 * MOST_FRAMES + 1])
def test_large_movies_become_small_animations(tmp_path: Path, frames: int) -> None:
    blank: Any = np.zeros((SIDE_PX + 2, 30), np.uint16)
    tracking = link_movie(blank for _ in range(frames))
    write_preview(tmp_path / "tracks.gif", (blank + number for number in range(frames)), tracking)
    with Image.open(tmp_path / "tracks.gif") as picture:
        assert max(picture.size) <= SIDE_PX
        assert getattr(picture, "n_frames", 1) <= MOST_FRAMES
