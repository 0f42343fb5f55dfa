"""Decides which axis of an array is which: as the job says, as the file says, or by one rule from the shape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from redis_consumer.errors import InvalidImage
from redis_consumer.job import DIMENSION_ORDERS, is_dimension_order

#: Letters of axes that a file doesn't explain.
UNKNOWN = frozenset("QI")
#: What `Source.axes_from` can say.
FROM_JOB, FROM_FILE, FROM_SHAPE = "dimension_order", "the file", "the shape"

#: An axis after Y and X has at most so many channels, and an axis before them so few, where only the shape is known.
_MOST_LAST, _MOST_FIRST = 16, 4
#: Five axes of which only the shape is known have the order of OME and ImageJ.
_FIVE = "TCZYX"
#: A side of an image has more pixels than this, or is no less than a quarter of the other side.
_THIN_PX, _THIN_RATIO = 16, 4


def resolve(shape: Sequence[int], axes: str, order: str, name: str) -> tuple[str, str]:
    """Return the letters of the axes of an array, and who says so.

    The job has more authority than the file, and the file more than the shape. An image of one plane fits every order.
    If neither job nor file names the axes, the rule is, for axes of more than one value:

    - two axes are Y and X, five are TCZYX;
    - a last axis of at most 4 values, or of at most 16 and a quarter of both axes before it, is C;
    - otherwise the last two axes are Y and X, and the axis before them is C if it has at most 4 values;
    - all other axes are B, images of a batch.

    Args:
        shape: of the array.
        axes: letters by the file; `UNKNOWN` ones are not explained.
        order: the job's field ``dimension_order``; empty for none. X and Y in either order are rows, then columns.
        name: the user's name for the file, for messages.

    Returns:
        The letters, and one of `FROM_JOB`, `FROM_FILE`, `FROM_SHAPE`.

    Raises:
        InvalidImage: the order is unknown, does not fit the rank, or takes rows or columns for something else.

    >>> resolve((2, 256, 256), "QQQ", "", "a.npy")
    ('CYX', 'the shape')
    >>> resolve((2, 256, 256), "QQQ", "BXY", "a.npy")
    ('BYX', 'dimension_order')
    """
    is_named = not UNKNOWN & set(axes)
    if is_named and (axes.count("Y") != 1 or axes.count("X") != 1):
        raise InvalidImage(f"{name}: its axes {axes} hold no image plane; save it with one Y and one X axis")
    own, own_from = (axes, FROM_FILE) if is_named else (_of_shape(shape, axes), FROM_SHAPE)
    order = order.strip().upper()
    if not order:
        if not is_named:
            _check_plane(shape, own, "its shape", "name its axes in field dimension_order", name)
        return own, own_from
    if not is_dimension_order(order):
        raise InvalidImage(
            f"{name}: field dimension_order: {order!r} is unknown; give one of {' '.join(DIMENSION_ORDERS)}, "
            "or other letters of TCZYXB"
        )
    if prod(shape) == shape[own.index("Y")] * shape[own.index("X")] > 0:
        return own, own_from
    letters = _fitted(shape, own, order, f"{own} {tuple(shape)}, from {own_from}", name)
    if is_named and (letters.index("Y"), letters.index("X")) != (own.index("Y"), own.index("X")):
        raise InvalidImage(
            f"{name}: field dimension_order: {order} makes {_planes(shape, letters)} of {tuple(shape)}, but the file "
            f"names its axes {own}; give {advised(own)}, or leave the field empty"
        )
    if not is_named:
        way_out = f"give {advised(own)}, or leave the field empty"
        _check_plane(shape, letters, f"field dimension_order: {order}", way_out, name)
    return letters, FROM_JOB


def reading_of(shape: Sequence[int], axes: str, axes_from: str) -> str:
    """Return the job's field ``axes_read``.

    >>> reading_of((2, 256, 256), "CYX", "the shape")
    'CYX (2, 256, 256), from the shape'
    """
    return f"{axes} {tuple(shape)}, from {axes_from}"


def advised(axes: str) -> str:
    """Return the ``dimension_order`` that means these axes."""
    return "".join(letter if letter in "TCZYX" else {"S": "C"}.get(letter, "B") for letter in axes)


def as_read(text: str) -> str:
    """Return the end of a message that follows from how an image was read.

    Args:
        text: the reading, see `reading_of`.
    """
    return f"(read as {text}; if that is wrong, give the axes in field dimension_order)" if text else ""


def _fitted(shape: Sequence[int], own: str, order: str, reading: str, name: str) -> str:
    """The letters of an order for each axis. It may leave out axes of one value."""
    given = order.translate(str.maketrans("XY", "YX")) if order.index("X") < order.index("Y") else order
    long = [axis for axis, side in enumerate(shape) if side != 1]
    if len(given) == len(shape):
        letters = given
    elif len(given) == len(long):
        found = iter(given)
        letters = "".join("B" if side == 1 else next(found) for side in shape)
    else:
        raise InvalidImage(
            f"{name}: field dimension_order: {order} names {len(order)} axes, but the image has {len(shape)}: "
            f"{reading}; give {advised(own)}, or leave it empty"
        )
    # A colour stays one where the order says that its samples are channels.
    return "".join("S" if (new, old) == ("C", "S") else new for new, old in zip(letters, own, strict=True))


def _of_shape(shape: Sequence[int], axes: str) -> str:
    """The letters by the rule of `resolve`. Where the file knows other letters, its Y and X are right too."""
    letters = [letter if letter not in UNKNOWN | set("YX") else "B" for letter in axes]
    if set("YX") < set(axes) - UNKNOWN:
        return "".join(_around_plane(letters, shape, axes))
    long = _long_axes(shape)
    if _has_last_of_one(shape) and len(shape) - 1 not in long:
        letters[-1] = "C"
    if len(long) == len(_FIVE):
        for axis, letter in zip(long, _FIVE, strict=True):
            letters[axis] = letter
        return "".join(letters)
    if len(long) > 2 and _is_channels([shape[axis] for axis in long[-3:]]):
        letters[long.pop()] = "C"
    *rest, y, x = long
    letters[y], letters[x] = "YX"
    return "".join(letters if "C" in letters else _with_channels(letters, shape, rest, (shape[y], shape[x])))


def _around_plane(letters: list[str], shape: Sequence[int], axes: str) -> list[str]:
    """Choose the letters of the other axes, if the file knows Y and X."""
    y, x = axes.index("Y"), axes.index("X")
    letters[y], letters[x] = "YX"
    if set("CS") & set(axes):
        return letters
    rest = [axis for axis, letter in enumerate(axes) if letter in UNKNOWN and shape[axis] > 1]
    return _with_channels(letters, shape, rest, (shape[y], shape[x]))


def _has_last_of_one(shape: Sequence[int]) -> bool:
    return len(shape) > 2 and shape[-1] == 1


def _long_axes(shape: Sequence[int]) -> list[int]:
    """Return the axes of several values; the last two if there are fewer, or those before a last axis of one value."""
    long = [axis for axis, side in enumerate(shape) if side != 1]
    last = len(shape) - _has_last_of_one(shape)
    return long if len(long) > 1 else [last - 2, last - 1]


def _with_channels(letters: list[str], shape: Sequence[int], rest: Sequence[int], plane: tuple[int, int]) -> list[str]:
    """Let the last of the axes before Y and X that is short be the channels."""
    found = next((axis for axis in reversed(rest) if shape[axis] <= _MOST_FIRST and shape[axis] < min(plane)), None)
    return ["C" if axis == found else letter for axis, letter in enumerate(letters)]


def _is_channels(sides: Sequence[int]) -> bool:
    *plane, last = sides
    return last < min(plane) and (last <= _MOST_FIRST or last <= min(_MOST_LAST, min(plane) // _THIN_RATIO))


def _check_plane(shape: Sequence[int], axes: str, by: str, way_out: str, name: str) -> None:
    """Refuse a reading by which rows or columns are most likely something else."""
    sides = (shape[axes.index("Y")], shape[axes.index("X")])
    others = [side for side, letter in zip(shape, axes, strict=True) if letter not in "YX"]
    side = min(sides)
    if 0 < side <= _THIN_PX and _THIN_RATIO * side <= max(sides) and side < max(others, default=0):
        raise InvalidImage(
            f"{name}: {by} makes {_planes(shape, axes)} of {tuple(shape)}, read as {axes}, which is hardly an image; "
            f"{way_out}"
        )


def _planes(shape: Sequence[int], axes: str) -> str:
    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    channels = prod(side for side, letter in zip(shape, axes, strict=True) if letter in "CS")
    frames = prod(shape) // max(height * width * channels, 1)
    return f"{frames} image(s) of {height} x {width} px with {channels} channel(s)"
