"""Answers errors with ``application/problem+json`` (RFC 9457): what is wrong, in which field, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match

from redis_consumer.errors import ConsumerError, ObjectNotFound, PermanentError, RetryableError
from redis_consumer.text import mask_secrets

#: Seconds after which a request that met an outage is worth another try.
RETRY_AFTER_S = 5
_TITLES = {
    400: "The request is not valid", 401: "Not logged in", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict", 412: "Wrong version", 413: "Too large", 415: "Wrong type of content",
    422: "A value is not valid", 423: "In use", 429: "Too many requests", 500: "The server has failed",
    503: "Not available now", 507: "No room",
}  # fmt: skip
_FIELD = re.compile(r"field ([\w.]+): (.*)", re.DOTALL)


class ProblemReply(BaseModel):
    """The body of an error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str = ""
    hint: str = ""


class Problem(Exception):
    """An error that is answered to the client.

    Args:
        status: HTTP status.
        detail: what is wrong.
        field: name of the wrong field; empty for none.
        hint: what to do; empty if `detail` says that.
        title: short name of the kind of error; by default that of the status.
    """

    def __init__(self, status: int, detail: str, *, field: str = "", hint: str = "", title: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.title = title or _TITLES.get(status, "Error")
        self.detail = detail
        self.field = field
        self.hint = hint

    def as_data(self) -> dict[str, Any]:
        """Return the body of the reply."""
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "field": self.field,
            "hint": self.hint,
        }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route for the argument ``responses``, besides 400, 401, 403, 422 and 503."""
    return {
        status: {
            "description": _TITLES[status],
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemReply"}}},
        }
        for status in sorted({400, 401, 403, 422, 503, *statuses})
    }


def parts_of(text: str) -> tuple[str, str, str]:
    """Return field, detail and hint of a message ``field NAME: detail; what to do``. Field and hint can be empty.

    >>> parts_of("field scale: must be above 0; give e.g. 0.5"), parts_of("a.tif: is damaged")
    (('scale', 'must be above 0', 'give e.g. 0.5'), ('', 'a.tif: is damaged', ''))
    """
    match = _FIELD.fullmatch(text)
    field, text = (match[1], match[2]) if match else ("", text)
    detail, _, hint = text.partition("; ")
    return field, detail, hint


def problem_of(error: ConsumerError) -> Problem:
    """Return the problem for an error of the package. Its message names the field and what to do."""
    text = mask_secrets(str(error))
    if isinstance(error, RetryableError):
        return Problem(503, text, hint="The server tries again by itself; repeat the request in some seconds.")
    if isinstance(error, ObjectNotFound):
        return Problem(404, text)
    field, detail, hint = parts_of(text)
    return Problem(422 if isinstance(error, PermanentError | ValueError) else 500, detail, field=field, hint=hint)


def _routes(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Yield routes, also those of included routers, which newer versions of FastAPI keep apart."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _routes(included.routes)


def _methods(app: FastAPI, request: Request) -> set[str]:
    """Return the methods of the address of a request: of all routes with the longest path that fits."""
    routes = list(_routes(app.router.routes))
    fitting = {
        str(getattr(route, "path_format", "")) for route in routes if route.matches(request.scope)[0] is not Match.NONE
    }
    path = max(fitting, key=lambda each: each.count("/"), default="")
    same = (route for route in routes if getattr(route, "path_format", None) == path)
    return {method for route in same for method in getattr(route, "methods", None) or ()}


def problem_reply(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the reply for a problem."""
    retry = {"Retry-After": str(RETRY_AFTER_S)} if problem.status in (429, 503) else {}
    return JSONResponse(
        problem.as_data(), problem.status, {**retry, **(headers or {})}, media_type="application/problem+json"
    )


def add_handlers(app: FastAPI) -> None:
    """Let an application answer all errors in this form."""

    async def on_problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)  # noqa: S101
        return problem_reply(error)

    async def on_ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ConsumerError)  # noqa: S101
        return problem_reply(problem_of(error))

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        first = error.errors()[0]
        place = [str(part) for part in first["loc"][1:]]
        return problem_reply(Problem(422, str(first["msg"]), field=".".join(place), hint="See /api/v1/openapi.json."))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The route that refuses the method names only its own; others have the same path.
            headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return problem_reply(Problem(error.status_code, str(error.detail)), headers)

    async def on_bug(_: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - the server logs it
        return problem_reply(Problem(500, "The server has failed; the details are in its log."))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(ConsumerError, on_ours)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)
