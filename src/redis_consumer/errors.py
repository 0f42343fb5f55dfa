"""What went wrong, said as what the worker will do about it.

::

    ConsumerError
      RetryableError         retried inside the job with backoff, then given back, no attempt counted
        RedisUnavailable
        StorageUnavailable
        ModelServerUnavailable
        MachineUnavailable   the worker's own disk or limits: given back at once
      OutOfResources         the job needs more memory or disk than there is: given
                             back, and the attempt counts
      PermanentError         failed at once, in words, no retry
        InvalidJob           a field of the job is missing or malformed           (also a ValueError)
        InvalidImage         the input can't be read as an image, or is too large (also a ValueError)
        UnsafeArchive        an archive that must not be unpacked                 (also a ValueError)
        ObjectNotFound       the bucket has no such object                        (also a FileNotFoundError)
        ModelNotFound        the model server or bucket has no such model         (also a LookupError)
        JobCancelled         somebody doesn't want the job any more
        ModelMismatch        the model doesn't fit the image or the functions     (also a ValueError)
      LeaseLost              the job is no longer ours: drop the result, write nothing
      SettingsError          stops the start, exit code 2; in a job: given back,
                             and claiming waits until the setting is right        (also a ValueError)

A message says which file or field, what is wrong with it and what to do, in this order: it becomes the last
line of the job's ``reason``, which scientists read. Anything outside this tree is a bug of ours or of a
plug-in and is logged with its traceback.
"""

from __future__ import annotations


class ConsumerError(Exception):
    """Base of all errors of this package.

    Args:
        message: which file or field, what is wrong, what to do.
        job_id: the job's key in Redis, where one is known.
        key: the object key in the bucket, where one is concerned.
        model: ``name:version`` of the model, where one is concerned.
        attempt: the run of the job in which it happened, from 1.
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
    """Something outside the job is away for now; the same job may succeed later."""


class RedisUnavailable(RetryableError):
    """Redis doesn't answer, or refuses commands for the moment (loading, failover)."""


class StorageUnavailable(RetryableError):
    """The bucket doesn't answer or refuses us for the moment."""


class ModelServerUnavailable(RetryableError):
    """The model server doesn't answer in time or is overloaded."""


class MachineUnavailable(RetryableError):
    """The machine of this worker doesn't work: its temporary files, its open files, its processes."""


class OutOfResources(ConsumerError):
    """The job needs more memory or disk than this worker has now; another worker, or a later run, may have enough."""


class PermanentError(ConsumerError):
    """The job itself is at fault: the same job would fail again."""


class InvalidJob(PermanentError, ValueError):
    """A field of the job is missing or malformed."""


class InvalidImage(PermanentError, ValueError):
    """The input can't be read as an image, or is larger than allowed."""


class UnsafeArchive(PermanentError, ValueError):
    """The archive would write outside its folder, or unpacks to more than allowed."""


class ObjectNotFound(PermanentError, FileNotFoundError):
    """The bucket has no object of this key."""


class ModelNotFound(PermanentError, LookupError):
    """There is no model of this name and version."""


class ModelMismatch(PermanentError, ValueError):
    """The model's inputs or outputs don't fit the image or the functions asked for."""


class JobCancelled(PermanentError):
    """Somebody doesn't want the job any more; it stops at its next step."""


class LeaseLost(ConsumerError):
    """Somebody else has the job by now; whatever we computed must not become visible."""


class SettingsError(ConsumerError, ValueError):
    """A setting is missing or wrong: the worker doesn't start, or claims nothing until it is right."""
