"""Formats the log lines of a worker.

Lines are readable text, or one JSON object each. Within a job, every line names the job, including lines of libraries.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, TextIO

from redis_consumer.text import MAX_LINE, MAX_TEXT, cut, mask_secrets

HANDLER_NAME = "redis-consumer"
#: Characters of a traceback in a log line.
MAX_EXCEPTION = 20_000

#: Libraries whose logs below warning are left out.
NOISY = (
    "PIL",
    "asyncio",
    "botocore",
    "filelock",
    "grpc",
    "imagecodecs",
    "matplotlib",
    "numba",
    "opentelemetry",
    "redis",
    "tifffile",
    "urllib3",
)

#: Fields of the running job, which are added to each line of a log.
job_fields: ContextVar[dict[str, Any]] = ContextVar("redis_consumer_job", default={})  # noqa: B039 - never changed in place
_standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def job_context(
    *, job_id: str, attempt: int | None = None, queue: str | None = None, consumer: str | None = None
) -> Iterator[None]:
    """Add the job to each line that is logged within the block.

    Args:
        job_id: the job's key in Redis.
        attempt: the run of the job, from 1; left out if None.
        queue: the job's queue; left out if None.
        consumer: name of the class that runs it; left out if None.
    """
    fields = {"job_id": job_id, "attempt": attempt, "queue": queue, "consumer": consumer}
    token = job_fields.set({**job_fields.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        job_fields.reset(token)


def initialize_logger(
    level: str | int = "INFO", fmt: str = "text", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send all logs of the process to one place, in one form. If it is called again, the last call applies.

    Args:
        level: least severity that is logged, by name (any case) or number. Libraries that talk much
            (`NOISY`) are kept to warnings.
        fmt: ``text`` for lines to read, ``json`` for an object a line: ``ts`` (ISO-8601, UTC), ``level``,
            ``logger``, ``message``; within a job ``job_id``, ``attempt``, ``queue`` and ``consumer``; ``exception``
            where there is one, and what a caller gave as ``extra``.
        secrets: texts that are masked wherever they would appear.
        stream: where to, standard error where None.

    Raises:
        ValueError: no such level or form.
    """
    if fmt not in ("text", "json"):
        raise ValueError(f"log format {fmt!r}: must be text or json")
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.set_name(HANDLER_NAME)
    handler.setFormatter(_Formatter(_json_line if fmt == "json" else _text_line, secrets))
    handler.addFilter(_add_job)
    for old in [known for known in root.handlers if known.get_name() == HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    def __init__(self, write: Any, secrets: Iterable[str]) -> None:
        super().__init__()
        self._write = write
        # An empty text is in every text.
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        exception = self.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
        exception = cut(mask_secrets(exception, self._secrets), MAX_EXCEPTION)
        line: str = self._write(record, exception, self._secrets)
        # Names that aren't UTF-8 come as lone surrogates, which no stream takes.
        return line.encode("utf-8", "backslashreplace").decode("utf-8")


def _add_job(record: logging.LogRecord) -> bool:
    for name, value in job_fields.get().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def _text_line(record: logging.LogRecord, exception: str, secrets: tuple[str, ...]) -> str:
    job_id, attempt = getattr(record, "job_id", None), getattr(record, "attempt", None)
    job = f" [{cut(str(job_id))}{f' attempt {attempt}' if attempt else ''}]" if job_id else ""
    message = cut(mask_secrets(record.getMessage(), secrets), MAX_TEXT)
    line = f"{_moment(record)} {record.levelname:<7} {record.name}{mask_secrets(job, secrets)}: {message}"
    # Indented, so that text after a line break in a file name can't look like a separate log line.
    return "\n    ".join((f"{line}\n{exception}" if exception else line).splitlines())


def _json_line(record: logging.LogRecord, exception: str, secrets: tuple[str, ...]) -> str:
    fields: dict[str, Any] = {
        "ts": _moment(record),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    given = {name: value for name, value in vars(record).items() if name not in _standard and name not in fields}
    plain = {**_plain(fields, secrets, MAX_TEXT), **_plain(given, secrets)}
    if exception:
        plain["exception"] = exception
    return json.dumps(plain, ensure_ascii=False)


def _plain(value: Any, secrets: tuple[str, ...], most: int = MAX_LINE) -> Any:
    """Convert a value for JSON. Secrets are masked and long texts are cut at any depth."""
    if isinstance(value, Mapping):
        return {cut(mask_secrets(str(name), secrets)): _plain(item, secrets, most) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, secrets, most) for item in value]
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return cut(mask_secrets(str(value), secrets), most)


def _moment(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
