"""Lets a request that is repeated with the same Idempotency-Key do its work once."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header

from redis_consumer.errors import RedisUnavailable
from redis_consumer.web.access import User
from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import Problem

IdempotencyKey = Annotated[str, Header(max_length=255, description="Makes a repetition of this request safe.")]
#: Seconds for which a key is known, and for which an unfinished request holds it.
ONCE_S, _PENDING_S = 24 * 3600, 60
_PENDING = "pending"


@contextmanager
def once(context: WebContext, user: User, key: str, content: str) -> Iterator[list[str]]:
    """Let a request with an Idempotency-Key do its work once.

    Yields:
        A list with the id that an earlier request has made, or an empty one, to which the block adds the id.

    Raises:
        Problem: 409: the earlier request has not ended. 422: it had another content.
    """
    if not key:
        yield []
        return
    name = f"redis-consumer:once:{user.name}:{hashlib.sha256(key.encode()).hexdigest()}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    token = secrets.token_hex(8)
    mark = json.dumps([digest, _PENDING, token])
    if not context.client.set(name, mark, nx=True, ex=_PENDING_S):
        earlier, made, its_token = json.loads(context.client.get(name) or '["", "", ""]')
        if earlier != digest:
            raise Problem(422, "another request had this key", field="Idempotency-Key", hint="Take a new key.")
        if made != _PENDING:
            yield [made]
            return
        if its_token != token:  # else a lost reply was repeated
            raise Problem(409, "The first request with this key has not ended.", hint="Repeat it in some seconds.")
    made_now: list[str] = []
    try:
        yield made_now
    except RedisUnavailable:
        raise  # the job may exist; the mark ends by itself
    except BaseException:
        context.client.delete(name)
        raise
    context.client.set(name, json.dumps([digest, made_now[0], token]), ex=ONCE_S)
