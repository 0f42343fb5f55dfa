"""Tells clients who they are, and what they may do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from redis_consumer.web.access import user_of
from redis_consumer.web.context import context_of
from redis_consumer.web.problems import problems
from redis_consumer.web.v1.shapes import UserReply

router = APIRouter()


@router.get("/me", response_model=UserReply, responses=problems())
def read_me(request: Request) -> dict[str, Any]:
    """Return the user of the request, and its limits."""
    context, user = context_of(request), user_of(request)
    return {
        "name": user.name,
        "role": user.role,
        "login": context.options.login,
        "limits": {"waiting_jobs": context.options.waiting_jobs, "upload_bytes": context.options.upload_bytes},
        "kiosk_api": context.options.kiosk_api,
    }
