"""Serves the kiosk's API under ``/api``, as its web server does (contract, section 2).

Paths are compared without regard to case and to a slash at the end. Only hashes of jobs can be read or expired.
"""

from __future__ import annotations

import json
import math
import socket
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from redis_consumer.client.submit import Submission, push_commands
from redis_consumer.errors import ConsumerError, RetryableError
from redis_consumer.text import in_utf8, mask_secrets
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.form_file import NoFile, TooLarge, receive_file, upload_name
from redis_consumer.web.links import object_link
from redis_consumer.web.problems import RETRY_AFTER_S

#: Most jobs or hashes in one request, and most bytes of its body.
_MOST_AT_ONCE, _MAX_BODY_BYTES = 100, 8 << 20
_MAX_NAME_BYTES = 1000
_JSON, _TEXT = "application/json; charset=utf-8", "text/plain; charset=utf-8"
_EXPIRE_S = 3600
#: Headers that the kiosk's server sends with everything, besides those of this server.
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "X-DNS-Prefetch-Control": "off",
    "X-Download-Options": "noopen",
    "X-XSS-Protection": "0",
    "Cache-Control": "no-store",
}
_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE"
#: Fields of a job by the names in a request; each is empty unless it is given.
_GIVEN = {
    "modelName": "model_name",
    "modelVersion": "model_version",
    "preprocessFunction": "preprocess_function",
    "postprocessFunction": "postprocess_function",
    "cuts": "cuts",
    "imageUrl": "url",
    "dataLabel": "label",
    "dataRescale": "scale",
}
_FORM = {
    "dimensionOrder": "dimension_order",
    "selectedChannels": "channels",
    "scale": "scale",
    "segmentationType": "segmentation_type",
}

Answer = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """A request that is refused, with the message of the reply."""


class BadBody(Exception):
    """A body that cannot be read.

    Args:
        status: of the reply.
        reason: its standard phrase.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def answer_kiosk(request: Request) -> Response:
    """Answer any request below ``/api``."""
    path = request.url.path.lower().rstrip("/").removeprefix("/api")
    if request.method == "OPTIONS":
        return _preflight(request)
    method = "GET" if request.method == "HEAD" else request.method
    answer = _ROUTES.get((method, path)) if context_of(request).options.kiosk_api else None
    if answer is None:
        return _json({}, 404)
    try:
        return await answer(request)
    except Refusal as error:
        return _json({"message": str(error)}, 400)
    except BadBody as error:
        return _json({"message": str(error), "stack": {}}, error.status)
    except RetryableError as error:
        # Text, since clients take any JSON for an answer, and try again after anything else.
        return _text(mask_secrets(str(error)), 503, {"Retry-After": str(RETRY_AFTER_S)})
    except ConsumerError as error:
        return _json({"message": mask_secrets(str(error))}, 500)


async def _health(_: Request) -> Response:
    return _json({"message": "OK"})


async def _job_types(request: Request) -> Response:
    return _json({"jobTypes": list(context_of(request).options.job_types)})


async def _models(request: Request) -> Response:
    storage, prefix = context_of(request).storage, context_of(request).options.model_prefix

    def read() -> dict[str, list[str]]:
        names = storage.list_folders(prefix)
        found = {name: storage.list_folders(f"{prefix}/{name}") for name in names}
        return {name: versions for name, versions in found.items() if versions}

    return _json({"models": await run_in_threadpool(read)})


async def _upload(request: Request) -> Response:
    context = context_of(request)
    try:
        name, path = await receive_file(request, context.folder / "forms", context.options.upload_bytes)
    except NoFile:
        return _text("Bad Request", 400)
    except TooLarge as error:
        return _json({"message": str(error)}, 413)
    try:
        is_s3 = context.storage.url.startswith("s3://")
        # On S3 the kiosk's server keeps the name of the file, and replies with the whole link twice.
        key = f"{context.options.upload_prefix}/{(is_s3 and name) or upload_name(name)}"
        await run_in_threadpool(context.storage.take_file, path, key)
    finally:
        path.unlink(missing_ok=True)
    url = context.storage.get_public_url(key)
    if not url.startswith("http"):
        url, _ = object_link(request, key, PurePosixPath(key).name)
    return _json({"imageURL": url, "uploadedName": url.partition("?")[0] if is_s3 else key})


async def _predict(request: Request) -> Response:
    job = _job_of(context_of(request), await _body(request))
    await run_in_threadpool(_push, context_of(request), [job])
    return _json({"hash": job.job_id})


async def _track(request: Request) -> Response:
    job = _job_of(context_of(request), {**await _body(request), "jobType": "track"})
    await run_in_threadpool(_push, context_of(request), [job])
    return _json({"hash": job.job_id})


async def _predict_batch(request: Request) -> Response:
    context, bodies = context_of(request), (await _body(request)).get("jobs")
    if not isinstance(bodies, list):
        raise Refusal("field jobs: must be a list of jobs")
    if len(bodies) > _MOST_AT_ONCE:
        return _json({"message": f"{len(bodies)} jobs; send at most {_MOST_AT_ONCE} at once"}, 413)
    jobs = [_job_of(context, body if isinstance(body, dict) else {}) for body in bodies]
    await run_in_threadpool(_push, context, jobs)
    return _json({"hashes": [job.job_id for job in jobs]})


async def _read(request: Request) -> Response:
    body = await _body(request)
    fields = body.get("key")
    names = [_js_text(name) for name in fields] if isinstance(fields, list) else [_js_text(fields)]
    [values] = await run_in_threadpool(_values, request, [body.get("hash")], names[:_MOST_AT_ONCE])
    return _json({"value": values if isinstance(fields, list) else values[0]})


async def _status(request: Request) -> Response:
    [[value]] = await run_in_threadpool(_values, request, [(await _body(request)).get("hash")], ["status"])
    return _json({"status": value})


async def _read_batch(request: Request) -> Response:
    body = await _body(request)
    rows = await run_in_threadpool(_values, request, _hashes(body), [_js_text(body.get("key"))])
    return _json({"values": [value for [value] in rows]})


async def _status_batch(request: Request) -> Response:
    rows = await run_in_threadpool(_values, request, _hashes(await _body(request)), ["status"])
    return _json({"statuses": [value for [value] in rows]})


async def _expire(request: Request) -> Response:
    body = await _body(request)
    given = _js_text(body.get("expireIn") or _EXPIRE_S)
    if not (given.isascii() and given.isdigit() and 0 < int(given[:12]) < 1 << 31):
        raise Refusal("field expireIn: must be a whole number of seconds above 0")
    job, seconds = body.get("hash"), int(given[:12])

    def expire() -> int:
        context = context_of(request)
        return int(context.client.expire(job, seconds)) if _are_jobs(context, [job])[0] else 0

    value = await run_in_threadpool(expire)
    return _json({"value": value}, 200 if value else 404)


_ROUTES: Mapping[tuple[str, str], Answer] = {
    ("GET", "/health-check"): _health,
    ("GET", "/jobtypes"): _job_types,
    ("GET", "/models"): _models,
    ("POST", "/upload"): _upload,
    ("POST", "/predict"): _predict,
    ("POST", "/track"): _track,
    ("POST", "/batch/predict"): _predict_batch,
    ("POST", "/batch/redis"): _read_batch,
    ("POST", "/batch/status"): _status_batch,
    ("POST", "/redis"): _read,
    ("POST", "/redis/expire"): _expire,
    ("POST", "/status"): _status,
}


def _job_of(context: WebContext, body: Mapping[str, Any]) -> Submission:
    """Return the job for the body of a request.

    Raises:
        Refusal: the name of the image or the queue is missing or not known.
    """
    name, queue = body.get("imageName"), body.get("jobType")
    if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise Refusal(f"field imageName: must be a name of at most {_MAX_NAME_BYTES} bytes")
    if queue not in context.options.job_types:
        known = ", ".join(context.options.job_types)
        raise Refusal(f"field jobType: {_js_text(queue)[:100]!r} is not one of {known}")
    name = in_utf8(name)
    form = body.get("jobForm")
    form = form if isinstance(form, Mapping) else {}
    fields = {field: _given(body.get(given)) for given, field in _GIVEN.items()}
    fields |= {field: _given(form.get(given)) or fields.get(field, "") for given, field in _FORM.items()}
    moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    target = f"{queue}-zip" if name.lower().endswith(".zip") else queue
    texts = {
        "original_name": name,
        "input_file_name": _given(body.get("uploadedName")) or name,
        **fields,
        "cuts": fields["cuts"] or "0",
        "status": "new",
        "created_at": moment,
        "updated_at": moment,
        "identity_upload": socket.gethostname(),
    }
    return Submission(f"{target}:{name}:{uuid.uuid4()}", Path(name), texts)


def _push(context: WebContext, jobs: Sequence[Submission]) -> None:
    if jobs:
        context.client.batch(*(command for job in jobs for command in push_commands(job)))


def _values(request: Request, jobs: Sequence[Any], names: Sequence[str]) -> list[list[str | None]]:
    """Read fields of jobs. A hash that is not one of a job has none; a link leads to this server."""
    context = context_of(request)
    wanted = [*names, "output_file_name"]
    known = [job for job, is_job in zip(jobs, _are_jobs(context, jobs), strict=True) if is_job]
    replies = context.client.batch(*(("HMGET", job, *wanted) for job in known)) if known else []
    rows = dict(zip(known, replies, strict=True))
    found = []
    for job in jobs:
        *values, key = rows[job] if isinstance(job, str) and job in rows else [None] * len(wanted)
        found.append([_linked(request, name, value, key) for name, value in zip(names, values, strict=True)])
    return found


def _linked(request: Request, name: str, value: str | None, key: str | None) -> str | None:
    if name != "output_url" or not value or not key:
        return value
    return object_link(request, key, PurePosixPath(key).name)[0]


def _served_queues(context: WebContext) -> set[str]:
    now = context.settings
    queues = (*context.options.job_types, now.queue, now.segmentation_queue)
    return {name for queue in queues for name in (queue, f"{queue}-zip")}


def _can_be_job(job: Any, queues: Collection[str]) -> bool:
    is_text = isinstance(job, str) and in_utf8(job) == job
    return is_text and job.partition(":")[0] in queues and job.count(":") > 1


def _are_jobs(context: WebContext, jobs: Sequence[Any]) -> list[bool]:
    """Return for each key whether it is a job that anyone may see: in a queue that is served, and without an owner."""
    queues = _served_queues(context)
    named = [job for job in jobs if _can_be_job(job, queues)]
    if not named:
        return [False] * len(jobs)
    kinds = context.client.batch(*(("TYPE", job) for job in named))
    hashes = [job for job, kind in zip(named, kinds, strict=True) if kind == "hash"]
    owners = context.client.batch(*(("HGET", job, "owner") for job in hashes)) if hashes else []
    known = {job for job, owner in zip(hashes, owners, strict=True) if not owner}
    return [isinstance(job, str) and job in known for job in jobs]


def _hashes(body: Mapping[str, Any]) -> list[Any]:
    hashes = body.get("hashes")
    if not isinstance(hashes, list) or len(hashes) > _MOST_AT_ONCE:
        raise Refusal(f"field hashes: must be a list of at most {_MOST_AT_ONCE} hashes")
    return hashes


async def _body(request: Request) -> dict[str, Any]:
    """Read the body: JSON or a form; another type is no body, as in the kiosk.

    Raises:
        BadBody: it is no JSON, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > _MAX_BODY_BYTES:
            raise BadBody(413, "Payload Too Large")
    if kind == "application/x-www-form-urlencoded":
        return {name: values[-1] for name, values in parse_qs(data.decode("utf-8", "replace")).items()}
    if kind != "application/json" or not data.strip():
        return {}
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadBody(400, "Bad Request") from None
    if not isinstance(body, (dict, list)):
        raise BadBody(400, "Bad Request")
    return body if isinstance(body, dict) else {}


def _given(value: Any) -> str:
    """Return a value as the kiosk's server stores it: what counts as false in JavaScript is empty."""
    return _js_text(value) if value or isinstance(value, (list, dict)) else ""


def _js_text(value: Any) -> str:
    """Return a value of JSON as JavaScript writes it.

    >>> _js_text(1.0), _js_text(True), _js_text([1, "a"])
    ('1', 'true', '1,a')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _js_number(value)
    if isinstance(value, list):
        return ",".join("" if part is None else _js_text(part) for part in value)
    if isinstance(value, dict):
        return "[object Object]"
    return "undefined" if value is None else in_utf8(str(value))


def _js_number(value: float) -> str:
    """Return a number as JavaScript writes it: with an exponent only from 1e21 on and below 1e-6.

    >>> _js_number(0.00001), _js_number(1.5e-7), _js_number(1e21), _js_number(float("inf"))
    ('0.00001', '1.5e-7', '1e+21', 'Infinity')
    """
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    digits, _, exponent = repr(value).partition("e")
    if not exponent:
        return digits
    power = int(exponent)
    if power < -6:
        return f"{digits}e{power}"
    if power > 0:
        return f"{digits}e+{power}"
    return f"{value:.{-power + len(digits.lstrip('-').replace('.', '')) - 1}f}"


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but which are no JSON."""
    raise ValueError(name)


def _json(data: Any, status: int = 200) -> Response:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "surrogateescape"), status, {**_HEADERS, "Content-Type": _JSON})


def _text(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text.encode("utf-8", "replace"), status, {**_HEADERS, **(headers or {}), "Content-Type": _TEXT})


def _preflight(request: Request) -> Response:
    """Answer a browser that asks which requests another page may send."""
    asked = request.headers.get("access-control-request-headers", "")
    headers = {**_HEADERS, "Access-Control-Allow-Methods": _METHODS, "Vary": "Access-Control-Request-Headers"}
    return Response(status_code=204, headers=headers | ({"Access-Control-Allow-Headers": asked} if asked else {}))
