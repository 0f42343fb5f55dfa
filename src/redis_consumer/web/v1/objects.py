"""Gives the table of objects of a job, and the files of its result in every format."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from redis_consumer.text import result_stem
from redis_consumer.web.access import user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.results.files import extracted_path, made_path, result_path
from redis_consumer.web.v1.job_data import FILES, RESULT, TRACK_FILES, result_name
from redis_consumer.web.v1.jobs import hash_of
from redis_consumer.web.v1.shapes import ObjectsReply

router = APIRouter()

#: Rows of a table as JSON.
MOST_ROWS = 200_000
_UNITS = (("_um2", "µm²"), ("_um", "µm"), ("area_px", "px²"), ("_px", "px"))
_TYPES = {
    ".tif": "image/tiff", ".zip": "application/zip", ".geojson": "application/geo+json", ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet", ".png": "image/png", ".json": "application/json",
}  # fmt: skip
FileName = Literal[
    "labels.tif", "labels.ome.tif", "rois.zip", "objects.geojson", "objects.csv", "objects.parquet", "overlay.png",
    "tracks.csv", "lineage.json", "result.zip",
]  # fmt: skip
_TABLE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The table.", "content": {"text/csv": {"schema": {"type": "string"}}}}
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(set(_TYPES.values()))},
    }
}


@router.get("/jobs/{job_id:path}/objects", response_model=ObjectsReply, responses={**problems(404), **_TABLE})
def read_objects(
    request: Request,
    job_id: str,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the name in the API
    columns: Annotated[str, Query(max_length=2000, description="Names, joined by commas. Empty for all.")] = "",
    t: Annotated[int | None, Query(ge=0, le=1_000_000, description="Only objects of this frame.")] = None,
) -> Any:
    """Return the table of objects: one row for each object and frame."""
    context = context_of(request)
    fields = hash_of(context, user_of(request), job_id)
    path = made_path(context, fields, "table")
    names = _names(path)
    wanted = [name.strip() for name in columns.split(",") if name.strip()] or names
    if unknown := [name for name in wanted if name not in names]:
        raise Problem(422, f"{unknown[0][:100]!r} is no column", field="columns", hint=f"Columns: {', '.join(names)}.")
    rows = _rows(path, names, wanted, t)
    if format == "csv":
        return StreamingResponse(_as_csv(wanted, rows), media_type="text/csv; charset=utf-8")
    found: list[list[float | None]] = []
    total = 0
    for row in rows:
        total += 1
        if total <= MOST_ROWS:
            found.append([_number(text) for text in row])
    return {"columns": [{"name": name, "unit": _unit(name)} for name in wanted], "rows": found, "total": total}


@router.get("/jobs/{job_id:path}/files/{name}", response_class=Response, responses={**problems(404), **_FILE})
def read_file(request: Request, job_id: str, name: FileName) -> Response:
    """Return a file of the result: as the worker wrote it, or made now."""
    context = context_of(request)
    fields = hash_of(context, user_of(request), job_id)
    path = _path(context, fields, name)
    stem = result_stem(fields.get("original_name") or "result").name
    shown = result_name(fields) if name == RESULT else f"{stem}_{name}"
    headers = {"Cache-Control": "private, no-cache"}
    return FileResponse(path, media_type=_TYPES[Path(name).suffix], filename=shown, headers=headers)


def _path(context: WebContext, fields: dict[str, str], name: str) -> Path:
    if name == RESULT:
        return result_path(context, fields)
    return extracted_path(context, fields, name) if name in TRACK_FILES else made_path(context, fields, FILES[name])


def _names(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _rows(path: Path, names: list[str], wanted: list[str], t: int | None) -> Iterator[list[str]]:
    places = [names.index(name) for name in wanted]
    frame = names.index("t" if "t" in names else "frame") if t is not None and names else None
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in rows:
            if frame is None or row[frame] == str(t):
                yield [row[place] for place in places]


def _as_csv(names: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield ",".join(names) + "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        if text.tell() > 1 << 16:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS if name.endswith(ending)), "")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
