"""Chooses one of several images in a file: fields of view, positions, scenes, wells."""

from __future__ import annotations

from collections.abc import Sequence

from redis_consumer.errors import InvalidImage

_SHOWN = 10


class SeveralImages(InvalidImage):
    """A file holds several images, and its job names none of them.

    Args:
        message: as for every error.
        fields: names of the images, which the job's field ``field_of_view`` can have.
    """

    def __init__(self, message: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


def choose(fields: Sequence[str], wanted: str, name: str) -> int:
    """Return the index of a field of view.

    Args:
        fields: names of those that the file has.
        wanted: the job's field ``field_of_view``; empty for the only one.
        name: the user's name for the file, for messages.

    Raises:
        SeveralImages: there are several and none is named.
        InvalidImage: there are none, or the named one isn't there.
    """
    if not fields:
        raise InvalidImage(f"{name}: holds no images; export it again")
    if wanted in fields:
        return fields.index(wanted)
    shown = ", ".join(fields[:_SHOWN]) + (" …" if len(fields) > _SHOWN else "")
    if wanted:
        raise InvalidImage(f"{name}: field field_of_view: there is no {wanted[:50]!r}; give one of {shown}")
    if len(fields) > 1:
        raise SeveralImages(
            f"{name}: holds {len(fields)} images ({shown}); name one in field field_of_view, e.g. {fields[0]}", fields
        )
    return 0
