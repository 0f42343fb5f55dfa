"""Serves what the page shows of an upload or a job: sizes, tiles, points and single values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from redis_consumer.job import Job
from redis_consumer.web.access import User, may_see, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.uploads import source_of
from redis_consumer.web.v1.uploads import looked, short_problem, uploads_of, views_of
from redis_consumer.web.v1.view_shapes import PointsReply, ValueReply, ViewReply
from redis_consumer.web.view import tiles
from redis_consumer.web.view.cache import ViewSource, ViewState
from redis_consumer.web.view.layout import IMAGE, LABELS, POINTS, TILE_PX, ViewLayer

router = APIRouter()
T = TypeVar("T")

#: Seconds for which a request waits for a view that is nearly there.
_WAIT_S = 1.5
#: Seconds for which it is remembered what a job's tiles are made of, and that the user may see them.
_KNOWN_S, _MOST_KNOWN = 5.0, 4096
_FOREVER = "private, max-age=31536000, immutable"
_FIELDS = (
    "owner",
    "input_file_name",
    "original_name",
    "dimension_order",
    "field_of_view",
    "output_file_name",
    "status",
)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_TILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "512 x 512 little-endian values, packed by zlib; a JPEG with `light`.",
        "content": {"application/octet-stream": _BYTES, "image/jpeg": _BYTES},
    },
    304: {"description": "The tile has not changed."},
}
Number = Annotated[int, Path(ge=0, le=1 << 24)]
Channel = Annotated[int, Query(ge=0, le=1 << 16, description="Number of the channel.")]
Position = Annotated[int, Query(ge=0, le=1 << 24)]
Version = Annotated[
    str, Query(max_length=40, description="`version` of the view: the reply can then be kept for ever.")
]


@dataclass(frozen=True)
class _Shown:
    """What a view consists of: the view of an image, and that of a result if there is one."""

    image: ViewSource
    result_key: str = ""

    def result(self, facts: dict[str, Any]) -> ViewSource:
        axes = zip(facts["axes"], facts["shape"], strict=True)
        frames = tuple((letter, side) for letter, side in axes if letter not in "YXCS" and side > 1)
        return ViewSource("make_result", self.result_key, facts["image_name"], axes=frames)


@router.get("/uploads/{upload_id}/view", response_model=ViewReply, responses=problems(404, 409))
async def read_upload_view(request: Request, upload_id: str) -> dict[str, Any]:
    """Say what can be shown of an upload. Its picture begins to be prepared."""
    return await _read_view(request, ("uploads", upload_id))


@router.get("/jobs/{job_id:path}/view", response_model=ViewReply, responses=problems(404, 409))
async def read_job_view(request: Request, job_id: str) -> dict[str, Any]:
    """Say what can be shown of a job: its image, and its result when it is done."""
    return await _read_view(request, ("jobs", job_id))


@router.get("/uploads/{upload_id}/view/at", response_model=ValueReply, responses=problems(404, 409))
async def read_upload_value(
    request: Request, upload_id: str, x: Position, y: Position, t: Position = 0, z: Position = 0
) -> dict[str, Any]:
    """Return the values at a pixel of an upload."""
    return await _read_value(request, ("uploads", upload_id), (t, z, y, x))


@router.get("/jobs/{job_id:path}/view/at", response_model=ValueReply, responses=problems(404, 409))
async def read_job_value(
    request: Request, job_id: str, x: Position, y: Position, t: Position = 0, z: Position = 0
) -> dict[str, Any]:
    """Return the values and labels at a pixel of a job."""
    return await _read_value(request, ("jobs", job_id), (t, z, y, x))


@router.get("/jobs/{job_id:path}/view/points/{t}/{z}", response_model=PointsReply, responses=problems(404, 409))
async def read_points(request: Request, job_id: str, t: Number, z: Number, v: Version = "") -> Response:
    """Return the points of a plane, such as the spots that a job has found."""
    state, layer, version = await _layer_of(request, ("jobs", job_id), POINTS)
    data = _or_404(lambda: tiles.points_of(state.folder, layer, t, z))
    return Response(data, media_type="application/json", headers=_caching(f"{version}-{t}-{z}", is_kept=v == version))


@router.get(
    "/uploads/{upload_id}/view/{layer}/{t}/{z}/{level}/{row}/{col}", response_class=Response,
    responses={**problems(404, 409), **_TILE},
)  # fmt: skip
async def read_upload_tile(
    request: Request, upload_id: str, layer: str, t: Number, z: Number, level: Number, row: Number, col: Number,
    c: Channel = 0, v: Version = "", light: str | None = None,
) -> Response:  # fmt: skip
    """Return a tile of an upload."""
    place = (t, z, c, level, row, col)
    return await _read_tile(request, ("uploads", upload_id), layer, place, v, is_light=light is not None)


@router.get(
    "/jobs/{job_id:path}/view/{layer}/{t}/{z}/{level}/{row}/{col}", response_class=Response,
    responses={**problems(404, 409), **_TILE},
)  # fmt: skip
async def read_job_tile(
    request: Request, job_id: str, layer: str, t: Number, z: Number, level: Number, row: Number, col: Number,
    c: Channel = 0, v: Version = "", light: str | None = None,
) -> Response:  # fmt: skip
    """Return a tile of a job's image or result."""
    place = (t, z, c, level, row, col)
    return await _read_tile(request, ("jobs", job_id), layer, place, v, is_light=light is not None)


def _find(context: WebContext, user: User, what: tuple[str, str]) -> _Shown:
    """Return what a view consists of; the user may see it."""
    kind, name = what
    if kind == "uploads":
        uploads = uploads_of(context)
        upload = uploads.advance(uploads.find(user, name))
        if not upload.key:
            raise Problem(409, "The upload is not complete.", hint="Send its other pieces first.")
        return _Shown(source_of(upload))
    texts = context.client.hmget(name, _FIELDS)
    fields = {field: text or "" for field, text in zip(_FIELDS, texts, strict=True)}
    if not fields["status"] or not may_see(user, fields):
        raise Problem(404, f"There is no job {name[:100]!r}, or it has expired.")
    job = Job(name, fields)
    key = context.storage.key_of(job.input_file_name)
    image = ViewSource("make_image", key, job.original_name, job.dimension_order, job.field_of_view)
    is_done = fields["status"] == "done" and fields["output_file_name"].endswith(".zip")
    return _Shown(image, fields["output_file_name"] if is_done else "")


async def _shown(request: Request, what: tuple[str, str], *, is_new: bool = False) -> _Shown:
    """Return the same, as it was some seconds ago if it is asked often."""
    context, user = context_of(request), user_of(request)
    known: dict[Any, tuple[float, _Shown]] = context.cache.setdefault("shown", {})  # type: ignore[assignment]
    key, now = (user, what), time.monotonic()
    found = known.get(key)
    if found is None or found[0] < now or is_new:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        found = known[key] = (now + _KNOWN_S, await run_in_threadpool(_find, context, user, what))
    return found[1]


async def _read_view(request: Request, what: tuple[str, str]) -> dict[str, Any]:
    shown = await _shown(request, what, is_new=True)
    views = views_of(context_of(request))
    states = [await looked(partial(views.look, shown.image), _WAIT_S)]
    facts = states[0].facts
    if shown.result_key and facts is not None and states[0].problem is None:
        states.append(await looked(partial(views.look, shown.result(facts)), _WAIT_S))
    image = (states[0].layers or {}).get(IMAGE)
    return {
        **_progress_of(states, has_image=image is not None),
        "version": _version(shown),
        **_sides_of(image),
        "pixel_size_um": facts["pixel_size_um"] if facts else None,
        "layers": [tiles.layer_facts(layer) for state in states for layer in (state.layers or {}).values()],
    }


def _progress_of(states: Sequence[ViewState], *, has_image: bool) -> dict[str, Any]:
    problem = next((state.problem for state in states if state.problem is not None), None)
    return {
        "ready": has_image and all(state.layers is not None or state.problem is not None for state in states),
        "progress": round(sum(state.progress for state in states) / len(states), 1),
        "problem": None if problem is None else short_problem(problem),
    }


def _sides_of(image: ViewLayer | None) -> dict[str, Any]:
    """Return the sides of the image, of its tiles and of its levels; 0 if there is no image yet."""
    if image is None:
        return {"width": 0, "height": 0, "tile": TILE_PX, "t": 0, "z": 0, "levels": []}
    levels = [
        {"width": level.width, "height": level.height, "rows": level.rows, "cols": level.cols} for level in image.levels
    ]
    sides = {"width": image.width, "height": image.height, "tile": TILE_PX}
    return {**sides, "t": image.t, "z": image.z, "levels": levels}


def _version(shown: _Shown) -> str:
    """Return a text that is another one if tiles are."""
    result = ViewSource("make_result", shown.result_key, "").id[:12] if shown.result_key else ""
    return shown.image.id[:12] + result


async def _layer_of(request: Request, what: tuple[str, str], name: str) -> tuple[ViewState, ViewLayer, str]:
    """Return a layer with the view that it is in, and the version of the views."""
    shown = await _shown(request, what)
    views = views_of(context_of(request))
    state = views.state_of(shown.image)
    if name != IMAGE:
        if not shown.result_key or state.facts is None:
            raise Problem(404, f"There is no layer {name[:50]!r}.", hint="Read the view: it lists the layers.")
        state = views.state_of(shown.result(state.facts))
    if state.layers is None:
        raise Problem(409, "The picture is not ready.", hint="Read the view: it says when.")
    if name not in state.layers:
        raise Problem(404, f"There is no layer {name[:50]!r}.", hint="Read the view: it lists the layers.")
    return state, state.layers[name], _version(shown)


async def _read_tile(
    request: Request, what: tuple[str, str], name: str, place: tuple[int, int, int, int, int, int], v: str, *,
    is_light: bool,
) -> Response:  # fmt: skip
    t, z, channel, *where = place
    level, row, col = where
    state, layer, version = await _layer_of(request, what, name)
    is_light = is_light and name == IMAGE and state.facts is not None
    headers = _caching(
        f"{version}-{name}-{t}-{z}-{channel}-{level}-{row}-{col}{'-light' * is_light}",
        is_kept=name == IMAGE or v == version,
    )
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    plane = _or_404(lambda: layer.plane_of(t, z, channel if name == IMAGE else 0))
    data = _or_404(lambda: tiles.stored_tile(state.folder, layer, plane, level, row, col))
    if is_light and state.facts is not None:
        facts = state.facts["channels"][channel]
        data = await run_in_threadpool(tiles.light_tile, data, layer.dtype, facts["min"], facts["max"])
        return Response(data, headers=headers, media_type="image/jpeg")
    return Response(data, headers={**headers, "Content-Encoding": "deflate"}, media_type="application/octet-stream")


async def _read_value(request: Request, what: tuple[str, str], place: tuple[int, int, int, int]) -> dict[str, Any]:
    t, z, y, x = place
    state, layer, _ = await _layer_of(request, what, IMAGE)
    planes = _or_404(lambda: [layer.plane_of(t, z, channel) for channel in range(layer.channels)])

    def read() -> list[float]:
        return [tiles.value_at(state.folder, layer, plane, y, x) for plane in planes]

    found: dict[str, Any] = {"values": await run_in_threadpool(_or_404, read)}
    for number, key in ((LABELS, "label"), (f"{LABELS}_2", "label_2")):
        try:
            labels, of, _ = await _layer_of(request, what, number)
            found[key] = tiles.value_at(labels.folder, of, of.plane_of(t, z, 0), y, x)
        except (Problem, IndexError, FileNotFoundError):
            found[key] = None
    return found


def _caching(tag: str, *, is_kept: bool) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": _FOREVER if is_kept else "private, no-cache"}


def _or_404(read: Callable[[], T]) -> T:
    """Call a function, and answer 404 where there is no such tile."""
    try:
        return read()
    except IndexError as error:
        raise Problem(404, f"{error}.") from None
    except FileNotFoundError:
        raise Problem(404, "The view was removed.", hint="Read the view again: it is made again.") from None
