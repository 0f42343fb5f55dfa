"""Writes the output of commands: messages for people, data for scripts, and exit codes.

Data goes to standard output and everything else to standard error, so that ``--json`` can be piped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from redis_consumer.errors import ConsumerError, RetryableError, SettingsError
from redis_consumer.text import MAX_TEXT, cut

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130

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
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)
    except RetryableError as error:
        fail(str(error), EXIT_UNAVAILABLE)
    except ConsumerError as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        fail("Interrupted", EXIT_INTERRUPTED)


def exit_code_of(call: Callable[[], int]) -> int:
    """Call a function outside of a command. Return its exit code, or that of the error it raises."""
    try:
        with exit_codes():
            return call()
    except typer.Exit as stop:
        return int(stop.exit_code)
    return EXIT_FAILED


def fail(message: str, code: int) -> None:
    """Print an error message and exit with this code."""
    say(f"Error: {message}" if code != EXIT_INTERRUPTED else message)
    raise typer.Exit(code)


def say(message: str) -> None:
    """Print a message for people on standard error."""
    sys.stderr.write(f"{printable(message)}\n")


def printable(text: str) -> str:
    """Shorten a text and remove terminal control characters, which file names, keys and reasons may contain."""
    short = cut(text, MAX_TEXT)
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in short)


def write_json(value: Any) -> None:
    """Print data for scripts as one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def console(*, is_data: bool = True) -> Console:
    """Open a rich console on standard output for data, else on standard error."""
    from rich.console import Console

    # Wide enough for whole lines in pipes and logs. A terminal has its own width.
    stream = sys.stdout if is_data else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else 160)
