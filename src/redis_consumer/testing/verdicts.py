"""Checks the runs of jobs, and says what to do if a check fails."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from redis_consumer.job import Job
from redis_consumer.testing.job_run import JobRun
from redis_consumer.testing.workbench import Workbench

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

#: Fields, and endings of field names, whose values differ in each run.
_ENDS_OF_ONE_RUN = ("_time", "_at", "_url", "_file_name")
_OF_ONE_RUN = frozenset({"children", "children:done", "children:failed", "failures", "identity_started", "updated_by"})
_REASON = re.compile(r"\w+: \S.*")
_MACHINE_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\"]+/)+[^\s/'\"]+")


def check(condition: object, message: str) -> None:
    """Fail a test with a message that says what to do."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(message)


def is_safe(name: str) -> bool:
    """Whether a file of an archive can be unpacked on any system, and stays inside the folder."""
    parts = PurePosixPath(name).parts
    plain = all(part not in ("..", "/") and len(part.encode()) <= 255 for part in parts)
    return bool(parts) and plain and name.isprintable() and not any(character in name for character in "\\:")


def failed_in_words(run: JobRun, what: str) -> None:
    """Check that a job failed because of its input, with a reason in one line."""
    __tracebackhide__ = True
    check(
        run.status == "failed",
        f"{what}: the job ended {run.status!r} ({run.outcome.value}), not failed; raise InvalidImage or InvalidJob for "
        "input that cannot be used, or leave it out of bad_inputs",
    )
    *before, last = run.reason.strip().splitlines() or [""]
    check(
        _REASON.fullmatch(last) and not before,
        f"{what}: the reason is not one line 'ErrorType: what is wrong': {run.reason!r}; "
        "raise an error of redis_consumer.errors instead",
    )
    paths = _MACHINE_PATH.findall(last)
    check(not paths, f"{what}: the reason contains local paths: {paths}; name the job's file instead")


def same(first: JobRun, second: JobRun, what: str, *, besides: Sequence[str] = ()) -> None:
    """Check that two runs gave the same pixels of images, bytes of other files and texts of fields.

    Args:
        first: the expected run.
        second: the run to check.
        what: name of the second run in messages.
        besides: names of files and fields that may differ.
    """
    __tracebackhide__ = True
    _same_files(first, second, what, besides)
    one, other = _lasting_fields(first), _lasting_fields(second)
    for name in sorted({*one, *other}.difference(besides)):
        check(
            one.get(name) == other.get(name),
            f"{what} wrote {other.get(name)!r} into the field {name} in place of {one.get(name)!r}; "
            "seed random numbers, keep no data on self, end names of times in _time, or use varying_fields",
        )


def _lasting_fields(run: JobRun) -> dict[str, str]:
    """Return the fields that must not differ between runs: not times, objects, children, or names made from them."""
    own = sorted(filter(None, (PurePosixPath(run.job.get("output_file_name")).stem, run.job.id)), key=len, reverse=True)
    lasting: dict[str, str] = {}
    for name, text in run.fields.items():
        if name in _OF_ONE_RUN or name.endswith(_ENDS_OF_ONE_RUN):
            continue
        for part in own:
            text = text.replace(part, "\N{HORIZONTAL ELLIPSIS}")
        lasting[name] = text
    return lasting


def _same_files(first: JobRun, second: JobRun, what: str, besides: Sequence[str]) -> None:
    __tracebackhide__ = True
    check(
        sorted(first.files) == sorted(second.files),
        f"{what} gave the files {sorted(second.files)} in place of {sorted(first.files)}; "
        "name them after the job's original_name only",
    )
    for name, content in first.files.items():
        if name in besides:
            continue
        image = first.outputs.get(name)
        is_same = content == second.files[name] if image is None else _equal(image, second.outputs[name])
        check(is_same, f"{what} gave another {name}; seed random numbers, and keep no data on self")


def _equal(first: Array, second: Array) -> bool:
    import numpy as np

    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def take_away(bench: Workbench, job: Job) -> None:
    """Let another worker claim a running job, as after the end of its lease."""
    bench.jobs.take_away(job.id)


def working_directory() -> Path | None:
    """Return the working directory, or None if it no longer exists."""
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd()
    return None


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Yield an empty folder, which is removed after the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


@contextlib.contextmanager
def own_tempdir() -> Iterator[Path]:
    """Write temporary files to an empty folder during the block."""
    previous = tempfile.tempdir
    with own_folder() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = previous
