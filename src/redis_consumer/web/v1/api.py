"""Builds the application of API v1 from its routers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from redis_consumer import __version__
from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import ProblemReply, add_handlers
from redis_consumer.web.v1 import batches, events, jobs, kinds, labels, me, objects, queues, uploads, view


def build_api(context: WebContext) -> FastAPI:
    """Return the application, to be mounted at ``/api/v1``."""
    app = FastAPI(
        title="redis-consumer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
    )
    app.state.context = context
    for router in (
        view.router,
        uploads.router,
        jobs.router,
        objects.router,
        labels.router,
        batches.router,
        events.router,
        kinds.router,
        queues.router,
        me.router,
        jobs.bare,
    ):
        app.include_router(router)
    add_handlers(app)
    own = app.openapi

    def openapi() -> dict[str, Any]:
        """Describe problems in the document, in place of FastAPI's own form of errors."""
        document = own()
        schemas = document["components"]["schemas"]
        schemas["ProblemReply"] = ProblemReply.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app
