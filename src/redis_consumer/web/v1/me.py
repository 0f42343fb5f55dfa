"""Logs users in and out with a token, and tells clients who they are and what they may do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from redis_consumer.web.access import User, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.login import COOKIE, user_of_token
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1.shapes import UserReply

router = APIRouter()
#: Seconds for which a browser keeps the cookie.
COOKIE_S = 30 * 24 * 3600


class LoginBody(BaseModel):
    """A token to log in with."""

    token: str = Field(max_length=200)


@router.post("/login", response_model=UserReply, responses=problems(401, 404))
def log_in(request: Request, response: Response, body: LoginBody) -> dict[str, Any]:
    """Check a token and keep it in a cookie that scripts of a page cannot read."""
    context = context_of(request)
    if context.options.login != "token":
        raise Problem(404, "This server has no login by tokens.")
    user = user_of_token(context.tokens, body.token)
    if user is None:
        raise Problem(401, "This token is unknown.", field="token", hint="Ask the operator of this server for one.")
    response.set_cookie(
        COOKIE, body.token, COOKIE_S, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return _data_of(context, user)


@router.post("/logout", status_code=204, responses=problems())
def log_out(response: Response) -> None:
    """Remove the cookie."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


@router.get("/me", response_model=UserReply, responses=problems())
def read_me(request: Request) -> dict[str, Any]:
    """Return the user of the request, and its limits."""
    return _data_of(context_of(request), user_of(request))


def _data_of(context: WebContext, user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "login": context.options.login,
        "limits": {"waiting_jobs": context.options.waiting_jobs, "upload_bytes": context.options.upload_bytes},
        "kiosk_api": context.options.kiosk_api,
    }
