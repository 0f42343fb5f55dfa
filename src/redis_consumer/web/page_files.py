"""Serves the files of the page, compressed. Browsers ask at each visit whether a file has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

#: Folder of the files: HTML, ES modules and one style sheet, without a build step.
FOLDER = Path(__file__).parent / "page"
#: Smaller files are sent as they are.
_LEAST_BYTES = 500


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def page_app() -> ASGIApp:
    """Return the application for the page, to be mounted at ``/`` after all other routes."""
    return GZipMiddleware(_PageFiles(directory=FOLDER, html=True), minimum_size=_LEAST_BYTES)
