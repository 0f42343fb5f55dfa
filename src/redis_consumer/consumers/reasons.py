"""What does a job's ``reason`` say of an error?"""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from redis_consumer.errors import ConsumerError
from redis_consumer.logs import mask_secrets

#: An absolute path in a text, and its last part; not one within a URL.
_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\"]+/)*([^\s/'\"]+)")


def describe(error: BaseException) -> str:
    """``ErrorType: message`` on one line, without the secrets of links and addresses."""
    return mask_secrets(f"{type(error).__name__}: {' '.join(str(error).split())}")


def reason_of(error: BaseException) -> str:
    """Text for the job's ``reason``: one line for errors in words, else the traceback without machine paths."""
    if isinstance(error, ConsumerError):
        return describe(error)
    lines = [
        f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return "\n".join(["Traceback (most recent call last):", *lines, _PATH.sub(r"\1", describe(error))])


def _short(filename: str) -> str:
    parts = Path(filename).parts
    for root in ("site-packages", "src"):
        if root in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(root) :])
    return parts[-1] if parts else filename
