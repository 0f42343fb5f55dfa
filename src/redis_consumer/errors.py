"""Defines the errors of the package. The class of an error decides what the worker does.

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


EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130


def exit_code(error: ConsumerError | KeyboardInterrupt) -> int:
    """Return the exit code of a command that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, SettingsError):
        return EXIT_USAGE
    return EXIT_UNAVAILABLE if isinstance(error, RetryableError) else EXIT_FAILED
