"""Plans the pieces of an image for jobs with ``cuts`` and ``field_size``."""

from __future__ import annotations

import math

from redis_consumer.errors import InvalidJob
from redis_consumer.processing.tiled import Span, TilePlan, round_up

#: ``field_size`` of jobs without this field (contract, section 1.3). It fits images of any size.
DEFAULT_FIELD_PX = 61


def plan_cuts(
    shape_yx: tuple[int, int],
    cuts: int,
    field: int,
    *,
    multiple_px: int = 1,
    max_tile_yx: tuple[int, int] | None = None,
) -> TilePlan:
    """Cut each side into `cuts` pieces of one size, for jobs with ``cuts`` and ``field_size`` (section 5.2).

    Each piece is extended by (field - 1) // 2 pixels on each side, by reflection at the border of the image. The result
    of the extension isn't used, and nothing is blended. If a side isn't divisible, the last piece is moved back to end
    at the border, so that no strip stays empty.

    Args:
        shape_yx: rows and columns of the image, 1 or more.
        cuts: number of pieces per side, at most the number of pixels of the shorter side.
        field: receptive field of the model in pixels, at most 61 or 1 + twice the longer side.
        multiple_px: sides of the pieces are rounded up to multiples of this number, below and to the right.
        max_tile_yx: largest number of rows and columns of a piece, None for any number.

    Raises:
        InvalidJob: `cuts` or `field` is out of range, or the pieces are too large.
    """
    _check_cuts(shape_yx, cuts, field)
    border = (field - 1) // 2
    cores = [math.ceil(side / cuts) for side in shape_yx]
    height, width = (round_up(core + 2 * border, multiple_px) for core in cores)
    if max_tile_yx is not None and (height > max_tile_yx[0] or width > max_tile_yx[1]):
        raise InvalidJob(
            f"fields cuts and field_size: {cuts} and {field} make pieces of {height} x {width} px, more than "
            f"{max_tile_yx[0]} x {max_tile_yx[1]} (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); "
            "give more cuts or a smaller field_size"
        )
    tile = (height, width)
    axes = tuple(_pieces(side, core, border, length) for side, core, length in zip(shape_yx, cores, tile, strict=True))
    return TilePlan(shape_yx, tile, axes)


def _check_cuts(shape_yx: tuple[int, int], cuts: int, field: int) -> None:
    if cuts < 1 or field < 1:
        raise InvalidJob(
            f"fields cuts and field_size: {cuts} and {field} aren't both above 0; give whole numbers above 0"
        )
    if cuts > min(shape_yx):
        raise InvalidJob(
            f"field cuts: {cuts} is more than the {min(shape_yx)} px of the image's shorter side; give fewer cuts"
        )
    # Padding by more than the sides of the image only repeats the same pixels, and can take unlimited memory.
    limit = max(2 * max(shape_yx) + 1, DEFAULT_FIELD_PX)
    if field > limit:
        raise InvalidJob(
            f"field field_size: {field} px is too much for an image of {shape_yx[0]} x {shape_yx[1]} px; "
            f"give at most {limit}"
        )


def _pieces(side: int, core: int, border: int, tile: int) -> tuple[Span, ...]:
    starts = dict.fromkeys(min(start, side - core) for start in range(0, side, core))
    return tuple(Span(slice(start - border, start - border + tile), slice(start, start + core)) for start in starts)
