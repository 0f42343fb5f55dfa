"""Writes the output of commands: messages for people, data for scripts, and exit codes.

Data goes to standard output and everything else to standard error, so that ``--json`` can be piped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from redis_consumer.errors import EXIT_INTERRUPTED, ConsumerError, exit_code
from redis_consumer.text import last_line, printable

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODES = (
    "Exit codes: 0 success; 1 a job or check failed; 2 wrong usage or settings; "
    "3 Redis, bucket or model server unavailable, or timed out; 130 interrupted."
)


def notes(*examples: str) -> str:
    """Build the end of a command's help: its examples, one per line, and the exit codes."""
    return "\n\n".join(["Examples:", *(f"$ {example}" for example in examples), EXIT_CODES])


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn our errors into a message on standard error and the exit code that the help names."""
    try:
        yield
    except (ConsumerError, KeyboardInterrupt) as error:
        fail(str(error), exit_code(error))


def fail(message: str, code: int) -> NoReturn:
    """Print an error message and exit with this code."""
    say("Interrupted" if code == EXIT_INTERRUPTED else f"Error: {message}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """Print a message for people on standard error."""
    sys.stderr.write(f"{printable(message)}\n")


def write_json(value: Any) -> None:
    """Print data for scripts as one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def console(*, is_data: bool = True) -> Console:
    """Open a rich console on standard output for data, else on standard error."""
    from rich.console import Console

    # Wide enough for whole lines in pipes and logs. A terminal has its own width.
    stream = sys.stdout if is_data else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else 160)


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
