"""Defines the errors of the package, and describes errors. The class of an error decides what the worker does.

::

    ConsumerError
      RetryableError         retried inside the job with backoff; then given back, and no attempt is counted
        RedisUnavailable
        StorageUnavailable
        ModelServerUnavailable
        MachineUnavailable   the worker's own disk or limits; given back at once
      OutOfResources         the job needs more memory or disk than there is; given
                             back, and the attempt counts
      PermanentError         failed at once, with a readable reason, without a retry
        InvalidJob           a field of the job is missing or malformed           (also a ValueError)
        InvalidImage         the input can't be read as an image, or is too large (also a ValueError)
        UnsafeArchive        the archive isn't safe to unpack                     (also a ValueError)
        ObjectNotFound       the bucket has no such object                        (also a FileNotFoundError)
        ModelNotFound        the model server or bucket has no such model         (also a LookupError)
        JobCancelled         a user cancelled the job
        ModelMismatch        the model doesn't fit the image or the functions     (also a ValueError)
      LeaseLost              this worker no longer holds the job: drop the result, write nothing
      SettingsError          the worker doesn't start, exit code 2; in a job: given
                             back, and no claim until the setting is right        (also a ValueError)

A message says which file or field is concerned, what is wrong with it and what to do, in this order. It becomes the
last line of the job's ``reason``, which users read. Any other exception is a bug in this package or in a plug-in,
and is logged with its traceback.
"""

from __future__ import annotations

import pathlib
import traceback

from redis_consumer.text import MAX_TEXT, cut, mask_secrets, without_paths

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130


class ConsumerError(Exception):
    """Base of all errors of this package.

    Args:
        message: which file or field, what is wrong, what to do.
        job_id: the job's key in Redis, if known.
        key: the object key in the bucket, if the error concerns an object.
        model: ``name:version`` of the model, if the error concerns a model.
        attempt: the run of the job in which the error occurred, from 1.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        key: str | None = None,
        model: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.key = key
        self.model = model
        self.attempt = attempt


class RetryableError(ConsumerError):
    """A service is temporarily unavailable. The same job may succeed later."""


class RedisUnavailable(RetryableError):
    """Redis doesn't respond, or temporarily refuses commands (loading, failover)."""


class StorageUnavailable(RetryableError):
    """The bucket doesn't respond, or temporarily refuses requests."""


class ModelServerUnavailable(RetryableError):
    """The model server doesn't respond in time, or is overloaded."""


class MachineUnavailable(RetryableError):
    """This worker's machine fails: it can't write temporary files, open files or start processes."""


class OutOfResources(ConsumerError):
    """The job needs more memory or disk than this worker has now; another worker, or a later run, may have enough."""


class PermanentError(ConsumerError):
    """The cause is in the job itself. The same job would fail again."""


class InvalidJob(PermanentError, ValueError):
    """A field of the job is missing or malformed."""


class InvalidImage(PermanentError, ValueError):
    """The input can't be read as an image, or is larger than allowed."""


class UnsafeArchive(PermanentError, ValueError):
    """The archive would write outside its folder, or unpacks to more than allowed."""


class ObjectNotFound(PermanentError, FileNotFoundError):
    """The bucket has no object of this key."""


class ModelNotFound(PermanentError, LookupError):
    """No model has this name and version."""


class ModelMismatch(PermanentError, ValueError):
    """The model's inputs or outputs don't fit the image or the functions of the job."""


class JobCancelled(PermanentError):
    """A user cancelled the job. It stops at its next step."""


class LeaseLost(ConsumerError):
    """Another worker has the job now. The result of this run must not become visible."""


class SettingsError(ConsumerError, ValueError):
    """A setting is missing or wrong. The worker doesn't start, or claims no jobs until the setting is right."""


def exit_code(error: ConsumerError | KeyboardInterrupt) -> int:
    """Return the exit code of a command that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, SettingsError):
        return EXIT_USAGE
    return EXIT_UNAVAILABLE if isinstance(error, RetryableError) else EXIT_FAILED


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
    kinds = [kind for kind in type(error).__mro__ if kind.__module__ == __name__]
    is_ours = type(error).__module__.partition(".")[0] == __name__.partition(".")[0]
    return kinds[0].__name__ if kinds and is_ours else type(error).__name__


def _short(filename: str) -> str:
    parts = pathlib.PurePath(filename).parts
    for root in ("site-packages", "src"):
        if root in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(root) :])
    return parts[-1] if parts else filename
