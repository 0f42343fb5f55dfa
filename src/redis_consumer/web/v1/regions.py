"""Cuts a region out of the image of a job."""

from __future__ import annotations

from collections.abc import Mapping

from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import Problem
from redis_consumer.web.v1.shapes import Region


def cut_out(context: WebContext, fields: Mapping[str, str], region: Region) -> dict[str, str]:  # noqa: ARG001
    """Return the fields of a job for a region of its image."""
    raise Problem(422, f"regions of {fields.get('original_name', '')} can't be cut out", field="region")
