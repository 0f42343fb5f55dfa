"""Takes uploads by tus 1.0, by one PUT, or by a link to the bucket, and says what is in them."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from time import time
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from redis_consumer.errors import ConsumerError
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.text import whole
from redis_consumer.web.access import user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.once import IdempotencyKey, once
from redis_consumer.web.problems import Problem, problem_of, problems
from redis_consumer.web.uploads import HALF_SENT_S, Upload, Uploads
from redis_consumer.web.v1.kinds import kept, served_classes
from redis_consumer.web.v1.view_shapes import NewUpload, NewUploadReply, UploadReply
from redis_consumer.web.view.cache import ViewCache, ViewState
from redis_consumer.web.view.decoders import DecoderLimits
from redis_consumer.web.view.layout import THUMBNAIL
from redis_consumer.web.view.suggestions import CYTOPLASM, NUCLEI, PHASE, TISSUE, suggest

router = APIRouter()

_TUS = {"Tus-Resumable": "1.0.0"}
#: Class of the consumers of the kiosk's jobs, which take the place of those of images where a worker runs them.
_SEGMENTATION = "SegmentationConsumer"
_BYTES = "application/offset+octet-stream"
_MOST_METADATA = 8000
#: Seconds for which a request waits for a thumbnail that is being made.
THUMBNAIL_WAIT_S = 5.0
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The upload has begun.",
        "headers": {"Location": {"description": "Address of the upload.", "schema": {"type": "string"}}},
    }
}
_OFFSET: dict[int | str, dict[str, Any]] = {
    204: {
        "description": "The bytes have come.",
        "headers": {"Upload-Offset": {"description": "Bytes that the server has.", "schema": {"type": "integer"}}},
    }
}
_BODY = {"requestBody": {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}, "required": True}}


def views_of(context: WebContext) -> ViewCache:
    """Return the views of this server."""
    views = context.cache.get("views")
    if not isinstance(views, ViewCache):
        options = context.options
        limits = DecoderLimits(options.decoder_bytes, options.decoder_s, file_bytes=options.cache_bytes)
        made = ViewCache(context.folder / "views", context.storage, max_bytes=options.cache_bytes, limits=limits)
        views = context.cache.setdefault("views", made)
    return views  # type: ignore[return-value]


def uploads_of(context: WebContext) -> Uploads:
    """Return the uploads of this server."""
    uploads = context.cache.get("uploads")
    if not isinstance(uploads, Uploads):
        uploads = context.cache.setdefault("uploads", Uploads(context, views_of(context)))
    return uploads  # type: ignore[return-value]


@router.options("/uploads", status_code=204, include_in_schema=False)
def describe_tus(request: Request) -> Response:
    """Describe what of tus the server can."""
    most = uploads_of(context_of(request)).most_bytes
    size = {"Tus-Max-Size": str(most)} if most else {}
    can = {"Tus-Version": "1.0.0", "Tus-Extension": "creation,expiration,termination"}
    return Response(status_code=204, headers={**_TUS, **can, **size})


@router.post(
    "/uploads",
    status_code=201,
    response_model=NewUploadReply,
    responses={**problems(400, 409, 412, 413, 429, 507), **_CREATED},
)
def create_upload(request: Request, body: NewUpload | None = None, idempotency_key: IdempotencyKey = "") -> Response:
    """Begin an upload. A client of tus sends headers instead of a body."""
    context, user = context_of(request), user_of(request)
    uploads = uploads_of(context)
    is_tus, is_direct = "tus-resumable" in request.headers, False
    if is_tus:
        _check_tus(request)
        name, size = _metadata_name(request.headers.get("upload-metadata", "")), _length(request)
    elif body is not None:
        name, size, is_direct = body.name, body.size, body.direct
    else:
        raise Problem(422, "give name and size", field="body", hint="Send JSON, or the headers of tus.")
    with once(context, user, idempotency_key, f"{name}\0{size}\0{is_direct}") as known:
        if not known:
            known.append(uploads.create(user, name, size, may_be_direct=is_direct).id)
    upload = uploads.find(user, known[0])
    address = f"/api/v1/uploads/{upload.id}"
    headers = {**_TUS, "Location": address, **_expires()}
    if is_tus:
        uploads.advance(upload)
        return Response(status_code=201, headers=headers)
    link = uploads.direct_link(upload)
    return JSONResponse({"id": upload.id, "tus": address, "direct": {"put": link} if link else None}, 201, headers)


@router.head("/uploads/{upload_id}", response_class=Response, responses=problems(404, 412))
def read_offset(request: Request, upload_id: str) -> Response:
    """Return in headers how many bytes the server has (tus)."""
    _check_tus(request)
    uploads = uploads_of(context_of(request))
    upload = uploads.find(user_of(request), upload_id)
    headers = {"Upload-Offset": str(uploads.offset_of(upload)), "Upload-Length": str(upload.size)}
    return Response(headers={**_TUS, **headers, "Cache-Control": "no-store", **_expires()})


@router.patch(
    "/uploads/{upload_id}", status_code=204, openapi_extra=_BODY,
    responses={**problems(400, 404, 409, 412, 413, 415, 423, 507), **_OFFSET},
)  # fmt: skip
async def append_piece(request: Request, upload_id: str) -> Response:
    """Send the next bytes of an upload (tus)."""
    _check_tus(request)
    if request.headers.get("content-type", "").partition(";")[0].strip() != _BYTES:
        raise Problem(415, f"The type of the body must be {_BYTES}.", field="Content-Type")
    offset = _number(request.headers.get("upload-offset", ""), "Upload-Offset")
    uploads = uploads_of(context_of(request))
    upload = await run_in_threadpool(uploads.find, user_of(request), upload_id)
    if upload.key or upload.is_direct:
        raise Problem(409, "The upload is complete.", field="Upload-Offset", hint="Begin a new upload.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and offset + int(announced) > upload.size:
        detail = f"{offset} + {announced} bytes are more than the {upload.size} of the upload."
        raise Problem(413, detail, hint="Begin a new upload of this file.")
    have = await uploads.append(upload, offset, request.stream())
    if have == upload.size:
        await run_in_threadpool(uploads.advance, upload)
    return Response(status_code=204, headers={**_TUS, "Upload-Offset": str(have), **_expires()})


@router.delete("/uploads/{upload_id}", status_code=204, responses=problems(404, 412))
def remove_upload(request: Request, upload_id: str) -> Response:
    """Forget an upload. Jobs that have its file keep it."""
    _check_tus(request)
    uploads = uploads_of(context_of(request))
    uploads.remove(uploads.find(user_of(request), upload_id))
    return Response(status_code=204, headers=_TUS)


@router.put(
    "/uploads/{upload_id:path}", status_code=201, response_model=UploadReply,
    responses={**problems(400, 404, 413, 429, 507), **_CREATED},
    openapi_extra={"requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def upload_at_once(request: Request, upload_id: str) -> Response:
    """Upload a file in one request, as ``curl -T FILE`` does. Here the last part of the address is its name."""
    context, user = context_of(request), user_of(request)
    announced = request.headers.get("content-length")
    size = None if announced is None else _number(announced, "Content-Length")
    upload = await uploads_of(context).receive(user, upload_id, size, request.stream())
    data = await run_in_threadpool(upload_data, context, upload)
    return JSONResponse(data, 201, {"Location": f"/api/v1/uploads/{upload.id}"})


@router.get("/uploads/{upload_id}/thumbnail", responses={**problems(404), 200: {"content": {"image/png": {}}}})
async def read_thumbnail(request: Request, upload_id: str) -> Response:
    """Return a PNG of the image, at most 256 px a side."""
    uploads = uploads_of(context_of(request))
    upload = await run_in_threadpool(uploads.find, user_of(request), upload_id)
    view = await looked(partial(uploads.look, upload), THUMBNAIL_WAIT_S) if upload.key else None
    if view is None or not (view.folder / THUMBNAIL).exists():
        raise Problem(404, "The picture is not ready.", hint="Repeat the request in some seconds.")
    kept = {"Cache-Control": "private, max-age=86400"}
    return FileResponse(view.folder / THUMBNAIL, headers=kept, media_type="image/png")


async def looked(look: Callable[[], ViewState], wait_s: float) -> ViewState:
    """Look at a view, and wait for some time if it is being made."""
    state = await run_in_threadpool(look)
    if state.done is not None and wait_s > 0:
        await asyncio.wait({asyncio.wrap_future(state.done)}, timeout=wait_s)
        state = await run_in_threadpool(look)
    return state


@router.get("/uploads/{upload_id}", response_model=UploadReply, responses=problems(404))
def read_upload(request: Request, upload_id: str) -> dict[str, Any]:
    """Read an upload: what has come, what is in it, and which settings suit it."""
    context, user = context_of(request), user_of(request)
    return upload_data(context, uploads_of(context).find(user, upload_id))


def upload_data(context: WebContext, upload: Upload) -> dict[str, Any]:
    """Return an upload as the API shows it."""
    uploads = uploads_of(context)
    offset = uploads.offset_of(upload)
    upload = uploads.advance(upload)
    error, view = uploads.failure_of(upload), None
    if upload.key:
        view = uploads.look(upload)
        error = view.problem
    return {
        "id": upload.id,
        "name": upload.name,
        "size": upload.size,
        "offset": offset,
        "state": _state(upload, offset, view),
        "problem": None if error is None else short_problem(error),
        "facts": _facts(context, upload, view),
    }


def _state(upload: Upload, offset: int, view: ViewState | None) -> str:
    if view is None:
        return "uploading" if offset < upload.size else "reading"
    if view.facts is not None:
        return "ready"
    return "reading" if view.problem is None else "unreadable"


def _facts(context: WebContext, upload: Upload, view: ViewState | None) -> dict[str, Any] | None:
    if view is None or view.facts is None:
        return None
    suggestions = suggest(view.facts, _usual_models(context))
    if suggestions["kind"] == "segmentation" and _SEGMENTATION not in served_classes(context):
        suggestions["kind"] = "image"
    thumbnail = f"/api/v1/uploads/{quote(upload.id)}/thumbnail"
    return {**view.facts, "thumbnail": thumbnail, "suggestions": suggestions}


def _usual_models(context: WebContext) -> Mapping[str, Mapping[str, Any]]:
    """Return the models of the settings by kind of image, those that exist, with the sizes of their cards."""
    found: Mapping[str, Mapping[str, Any]] = kept(context, "usual models", lambda: _read_models(context))
    return found


def _read_models(context: WebContext) -> dict[str, dict[str, Any]]:
    now, store = context.settings, ModelStore(context.storage)
    names = {
        NUCLEI: now.nuclear_model, CYTOPLASM: now.cytoplasm_model, PHASE: now.phase_model, TISSUE: now.tissue_model
    }  # fmt: skip
    found = {}
    for kind, text in names.items():
        try:
            model = store.or_packaged(ModelId.parse(text))
            card = store.card(model)
        except ConsumerError:
            continue  # its jobs fail with the reason
        sizes = (card.pixel_size_um, card.object_diameter_px) if card else (None, None)
        found[kind] = {"name": str(model), "pixel_size_um": sizes[0], "object_diameter_px": sizes[1]}
    return found


def short_problem(error: ConsumerError) -> dict[str, str]:
    """Return an error as a part of a reply."""
    data = problem_of(error).as_data()
    return {name: data[name] for name in ("title", "detail", "field", "hint")}


def _check_tus(request: Request) -> None:
    version = request.headers.get("tus-resumable")
    if version not in (None, "1.0.0"):
        raise Problem(412, f"Version {version[:20]} of tus is not known.", field="Tus-Resumable", hint="Use 1.0.0.")


def _expires() -> dict[str, str]:
    return {"Upload-Expires": formatdate(time() + HALF_SENT_S, usegmt=True)}


def _length(request: Request) -> int:
    if "upload-defer-length" in request.headers:
        raise Problem(
            400, "The size must be known at the start.", field="Upload-Defer-Length", hint="Send Upload-Length."
        )
    return _number(request.headers.get("upload-length", ""), "Upload-Length")


def _number(text: str, field: str) -> int:
    try:
        number = whole(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 53:
        raise Problem(400, f"{field} is {text[:30]!r}, wanted is a number of bytes.", field=field)
    return number


def _metadata_name(text: str) -> str:
    """Return the name of the file in the header ``Upload-Metadata``: pairs of a key and a value in base64."""
    if len(text) > _MOST_METADATA:
        raise Problem(400, "The metadata are too long.", field="Upload-Metadata")
    pairs = {key: value for key, _, value in (pair.strip().partition(" ") for pair in text.split(","))}
    value = pairs.get("filename") or pairs.get("name") or ""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace") or "image"
    except (binascii.Error, ValueError):
        raise Problem(400, "The name of the file is not base64.", field="Upload-Metadata") from None
