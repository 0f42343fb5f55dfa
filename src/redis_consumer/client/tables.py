"""Unpacks downloaded results, and joins the tables of cells in them."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from redis_consumer.archives.limits import safe_name
from redis_consumer.archives.packing import check_result_zip
from redis_consumer.text import cell, in_utf8

#: End of the names of tables in results.
_ENDING = "_cells.csv"


def unpack_result(path: Path) -> Path:
    """Unpack a result zip into a folder of the same name, and remove the zip.

    Returns:
        The folder.

    Raises:
        UnsafeArchive: the zip is damaged, or has a member that leads out of the folder.
        OSError: the files can't be written.
    """
    check_result_zip(path, path.name)
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            target = folder / safe_name(member.filename, path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    path.unlink()
    return folder


def join_tables(results: Iterable[tuple[str, Path]], path: Path) -> int:
    """Write one CSV table of the cells in several results, with the name of the image in the first column.

    Args:
        results: name of each submitted file, and its result: a zip, or the folder that it was unpacked to.
        path: of the table. It isn't written if fewer than two results have tables.

    Returns:
        Number of tables that were joined; 0 if nothing was written.

    Raises:
        OSError: a file can't be read or written.
    """
    places = [(name, result, member) for name, result in results for member in _tables_in(result)]
    if len(places) < 2:
        return 0
    columns: dict[str, None] = {}
    for _, result, member in places:
        with _opened(result, member) as file:
            columns.update(dict.fromkeys(next(csv.reader(file), [])))
    with path.open("w", newline="", encoding="utf-8", errors="replace") as sink:
        rows = csv.DictWriter(sink, ["image", *columns], restval="", lineterminator="\n")
        rows.writeheader()
        for name, result, member in places:
            image = cell(in_utf8(f"{name}/{member.removesuffix(_ENDING)}" if _is_many(result) else name))
            with _opened(result, member) as file:
                rows.writerows({"image": image, **row} for row in csv.DictReader(file))
    return len(places)


def _is_many(result: Path) -> bool:
    return len(list(_tables_in(result))) > 1


def _tables_in(result: Path) -> Iterator[str]:
    """Yield the names of the tables in a result; none if it is damaged."""
    if result.is_dir():
        names = sorted(path.relative_to(result).as_posix() for path in result.rglob(f"*{_ENDING}"))
    elif zipfile.is_zipfile(result):
        with zipfile.ZipFile(result) as archive:
            names = archive.namelist()
    else:
        names = []
    yield from (name for name in names if name.endswith(_ENDING))


@contextmanager
def _opened(result: Path, member: str) -> Iterator[TextIO]:
    if result.is_dir():
        with (result / member).open(newline="", encoding="utf-8") as file:
            yield file
    else:
        with zipfile.ZipFile(result) as archive, archive.open(member) as source:
            yield io.TextIOWrapper(source, "utf-8", newline="")
