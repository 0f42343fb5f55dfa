"""Builds the web server's application: the kiosk's API, API v1, links to results, probes and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Mount, Route
from starlette.types import ASGIApp, Scope

from redis_consumer.errors import ConsumerError
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.kiosk import answer_kiosk
from redis_consumer.web.links import serve_object
from redis_consumer.web.login import Login, user_finder
from redis_consumer.web.page_files import page_app
from redis_consumer.web.problems import Problem, problem_of, problem_reply
from redis_consumer.web.request_check import RequestCheck
from redis_consumer.web.v1.api import build_api

_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
#: Headers of API v1 that pages of WEB_ORIGINS may read.
_EXPOSED = ["ETag", "Location", "Retry-After", "Tus-Resumable", "Tus-Version", "Upload-Length", "Upload-Offset"]


def build_app(context: WebContext) -> Starlette:
    """Return the application. Its context is closed when the server ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        context.close()

    app = Starlette(
        routes=[
            Route("/live", read_live),
            Route("/ready", read_ready),
            Mount("/api/v1", _with_origins(build_api(context), context.options.origins)),
            Route("/results/{token}/{name}", serve_object),
            AnyCaseRoute("/api/{path:path}", answer_kiosk, methods=_ALL_METHODS),
            Mount("/", page_app()),
        ],
        middleware=[
            Middleware(RequestCheck, options=context.options),
            Middleware(Login, find_user=user_finder(context), wants_token=context.options.login == "token"),
        ],
        exception_handlers={Problem: _on_problem, ConsumerError: _on_ours, HTTPException: _on_http},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.context = context
    return app


class AnyCaseRoute(Route):
    """A route whose path is compared in lower case."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Compare the path of a request."""
        return super().matches({**scope, "path": scope["path"].lower()})


def _with_origins(app: ASGIApp, origins: frozenset[str]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=sorted(origins), allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
    )


async def read_live(_: Request) -> Response:
    """Reply that the process answers."""
    return JSONResponse({"status": "ok"})


async def read_ready(request: Request) -> Response:
    """Reply whether Redis answers."""
    await run_in_threadpool(context_of(request).client.ping)
    return JSONResponse({"status": "ok"})


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return problem_reply(error)


async def _on_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, ConsumerError)  # noqa: S101
    return problem_reply(problem_of(error))


async def _on_http(request: Request, error: Exception) -> Response:
    """Answer below ``/api/v1`` what its application does not get, such as a path with a line break."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if request.url.path.startswith("/api/v1"):
        return problem_reply(Problem(error.status_code, str(error.detail)))
    return PlainTextResponse(str(error.detail), error.status_code, error.headers)
