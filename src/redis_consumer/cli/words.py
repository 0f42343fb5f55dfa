"""Formats states, ages and durations for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone


def in_words(fields: Mapping[str, str]) -> str:
    """Describe the state of a job from its fields."""
    state = fields.get("status", "")
    if state == "failed":
        reason = last_line(fields.get("reason", ""))
        return f"failed: {reason}" if reason else "failed"
    words = {"new": "waiting in its queue", "waiting": "waiting for its images", "": "without a status"}
    text = words.get(state, state.replace("-", " "))
    progress = fields.get("progress", "")
    return f"{text} ({progress} %)" if progress and state != "done" else text


def last_line(reason: str) -> str:
    """Give the last line of a reason, which says what is wrong and what to do."""
    lines = reason.strip().splitlines()
    return lines[-1] if lines else ""


def age_s(moment: str) -> float | None:
    """Compute the seconds since an ISO-8601 time with zone; None if it is not valid."""
    try:
        # Python 3.10 does not accept the Z that the kiosk's web server writes.
        then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return None
    return None if then.tzinfo is None else max((datetime.now(timezone.utc) - then).total_seconds(), 0.0)


def duration(seconds: float) -> str:
    """Format a duration in a suitable unit.

    >>> duration(90)
    '1.5 min'
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> counted(1, "job"), counted(2, "job")
    ('1 job', '2 jobs')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
