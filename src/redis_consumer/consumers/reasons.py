"""Turns an error into the text of a job's ``reason``."""

from __future__ import annotations

import traceback
from pathlib import Path

from redis_consumer import errors
from redis_consumer.errors import ConsumerError
from redis_consumer.text import MAX_TEXT, cut, mask_secrets, without_paths


def describe(error: BaseException) -> str:
    """Return ``ErrorType: message`` on one line of limited length, without secrets of links and addresses."""
    return cut(mask_secrets(f"{_kind(error)}: {' '.join(str(error).split())}"))


def reason_of(error: BaseException) -> str:
    """Return the text for the job's ``reason``: one line for expected errors, otherwise the traceback without local
    paths.
    """
    if isinstance(error, ConsumerError):
        return describe(error)
    lines = [
        f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    # An endless recursion has a thousand lines.
    return cut("\n".join(["Traceback (most recent call last):", *lines, without_paths(describe(error))]), MAX_TEXT)


def _kind(error: BaseException) -> str:
    """Name an error by its class, and a subclass that is used only inside the package by its public class."""
    kinds = [kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    is_ours = type(error).__module__.partition(".")[0] == errors.__name__.partition(".")[0]
    return kinds[0].__name__ if kinds and is_ours else type(error).__name__


def _short(filename: str) -> str:
    parts = Path(filename).parts
    for root in ("site-packages", "src"):
        if root in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(root) :])
    return parts[-1] if parts else filename
