"""Opens the image of a file: the only one, or the first of an archive or of a file with several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis_consumer.archives import iter_members
from redis_consumer.errors import InvalidImage
from redis_consumer.images.fields import SeveralImages
from redis_consumer.images.kinds import kind_of_head, why_no_image
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.job import PACKED_HEAD_BYTES, READABLE_ARCHIVES, packed_as
from redis_consumer.web.view.pixels import ShownImage, open_shown

#: Ends of the names of files in archives that are no images.
_OTHERS = (".csv", ".txt", ".xml", ".json", ".log", ".md", ".pdf", ".xlsx")


@contextmanager
def open_first(
    path: Path, name: str, folder: Path, *, order: str = "", field: str = "", max_bytes: int
) -> Iterator[tuple[ShownImage, int, str]]:
    """Open the image of a file.

    Yields:
        The image, how many images the file has, and the name of this one: that in the archive, or the file's own.

    Args:
        path: the local file or folder.
        name: the user's name for it, for messages.
        folder: an empty folder, for an image of an archive.
        order: the job's field ``dimension_order``.
        field: the job's field ``field_of_view``; empty for the first of several.
        max_bytes: see `open_shown`.

    Raises:
        InvalidImage: it can't be read.
        UnsafeArchive: it is an archive that can't be read.
    """
    images, label = 1, name
    if _is_archive(path):
        path, name, images = _first_of_archive(path, name, folder)
        label = name.rpartition("/")[2]
    try:
        with open_shown(path, label, order=order, field=field, max_bytes=max_bytes) as image:
            yield image, images, name
            return
    except SeveralImages as error:
        fields = error.fields
    with open_shown(path, label, order=order, field=fields[0], max_bytes=max_bytes) as image:
        yield image, images * len(fields), name


def _is_archive(path: Path) -> bool:
    if path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(PACKED_HEAD_BYTES)
    if kind_of_head(head):
        return False
    if head.startswith(b"PK\3\4"):
        return not is_ome_zarr(path)
    return packed_as(head) in ("gzip", "tar")


def _first_of_archive(path: Path, name: str, folder: Path) -> tuple[Path, str, int]:
    """Unpack the first image of an archive; return its path and name, and the number of images by their names."""
    first: Path | None = None
    first_name = ""
    images: set[str] = set()
    members = iter_members(
        path,
        folder,
        label=name,
        why_skipped=lambda _: "it is only counted" if first else "",
        whole_folder=lambda each: "" if first else _zarr_folder(each),
    )
    for member in members:
        image = _zarr_folder(member.name) or member.name
        if member.path is None:
            images |= set() if image.lower().endswith(_OTHERS) else {image}
        elif member.path.is_dir() or not why_no_image(member.path):
            images.add(image)
            if first is None:
                first, first_name = member.path, image
        else:
            member.path.unlink()
    if first is None:
        raise InvalidImage(f"{name}: holds no images; pack files such as .tif or .png as {READABLE_ARCHIVES}")
    return first, first_name, len(images)


def _zarr_folder(name: str) -> str:
    """Return the outermost folder of an archive that is an OME-Zarr with this member; empty for none."""
    parts = name.split("/")[:-1]
    ends = (number for number, part in enumerate(parts, 1) if part.lower().endswith(".zarr"))
    return "/".join(parts[: next(ends, 0)])
