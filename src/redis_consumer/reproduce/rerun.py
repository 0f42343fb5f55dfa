"""Runs a job again from its record, without writing to Redis or the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis_consumer import settings as settings_module
from redis_consumer.consumers import registry
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.local_jobs import JobHashes, LocalJobs
from redis_consumer.errors import ConsumerError, InvalidJob, ObjectNotFound, PermanentError, RetryableError
from redis_consumer.job import Job, JobStatus, inherited
from redis_consumer.provenance import record
from redis_consumer.provenance.record import FIELD
from redis_consumer.reproduce.record import MOST_BYTES, Record, differences, parse, pinned, with_options
from redis_consumer.settings import Settings
from redis_consumer.settings.sources import build
from redis_consumer.storage import Storage
from redis_consumer.storage.read_only import ReadOnlyBucket
from redis_consumer.text import file_digest

#: Number of child records to look for. If these no longer exist, the others do not either.
_CHILDREN_TRIED = 10
_IMAGE = registry.BUILT_IN["image"]


class Rerun:
    """A job that is run again.

    If the job asked for the latest version of a model, it gets the version that it got at that time.

    Args:
        record: record of the job.
        bucket: bucket with input, results and models; nothing is written to it.
        folder: empty folder for the files that the run downloads and writes.
        fields: fields of the job that replace those in the record.
        trusted: import paths of consumers that may be imported although no installed package offers them.
        on_write: called with the job or child job after each write to its hash.
    """

    def __init__(
        self,
        record: Record,
        bucket: Storage,
        folder: Path,
        *,
        fields: Mapping[str, str],
        trusted: Sequence[str] = (),
        on_write: Callable[[Job], None] | None = None,
    ) -> None:
        children = _record_of_children(record, bucket)
        #: The record that is run. Its model versions are pinned, see `pinned`.
        self.record = pinned(record, children.data["models"])
        self.bucket = ReadOnlyBucket(bucket, folder)
        self._fields = fields
        self._own = settings_module.current()
        self._jobs = LocalJobs(JobHashes(on_write), self._consumer_for)
        self._trusted = {*trusted, str(settings_module.get("CONSUMER_TYPE"))}
        self._ways = {True: self.record, False: pinned(children)}
        self._consumers: dict[bool, Consumer] = {}
        #: Local copy of the checked input; None before the check and for a folder.
        self.input_path: Path | None = None

    def check_input(self) -> None:
        """Download the input and check that it has not changed.

        Raises:
            PermanentError: it no longer exists, or it has changed.
        """
        key = self.record.input_key
        known = {each["key"]: each for each in self.record.data["inputs"]}
        if f"{key}/" in known:
            return  # a folder is compared after the run
        try:
            path = self.input_path = self.bucket.keep(key)
        except ObjectNotFound as error:
            raise PermanentError(f"input {key}: not found in the bucket; upload it again") from error
        noted = known.get(key, {}).get("sha256")
        if noted and file_digest(path) != noted:
            raise PermanentError(
                f"input {key}: has changed: its SHA-256 is {file_digest(path)}, the record has {noted}; "
                "upload the original again"
            )

    def run(self) -> Record:
        """Run the job. Return the record of the new result, which is in `bucket`.

        Raises:
            PermanentError: the job fails now; the message says why.
            RetryableError: an outside service is unavailable.
            SettingsError: the consumer is not installed, or the record's settings are wrong.
        """
        self.record = self._ways[True] = with_options(self.record, _class_of(self.record, self._trusted).Options)
        job = self.record.data["job"]
        given = {**job["fields"], **self._fields}
        own = {"original_name": given.get("original_name", ""), "input_file_name": self.record.input_key}
        # A record from elsewhere may have fields that workers write. They would change the run.
        fields = {**inherited(Job(self.record.job_id, given)), **own, "status": "new"}
        try:
            ended = self._run(self.record.job_id, fields, int(job["attempt"]))
        finally:
            settings_module.use(self._own)
            for consumer in self._consumers.values():
                consumer.close()
        if ended.status != JobStatus.DONE:
            reason = ended.get("reason").strip().splitlines() or [f"ended {ended.status}"]
            raise PermanentError(f"job {ended.id}: fails now: {reason[-1]}", job_id=ended.id)
        if not ended.get(FIELD):
            raise PermanentError(f"job {ended.id}: produces no result now", job_id=ended.id)
        content = self.bucket.read_bytes(ended.get(FIELD))
        return parse("the new record", content, result_key=ended.get("output_file_name"))

    def differences(self, new: Record) -> list[dict[str, Any]]:
        """List all other differences, see `redis_consumer.reproduce.record.differences`.

        Some, such as the model, are only in the records of children. The child record that was used is compared.
        """
        found = differences(self.record.data, new.data)
        child, own = self._ways[False], {each["field"] for each in found}
        keys = [each.get("record") for each in new.data["children"] if each["job"] == child.job_id]
        if not any(keys):
            return found
        now = parse(keys[0], self.bucket.read_bytes(keys[0]))
        others = [each for each in differences(child.data, now.data) if each["field"] not in own]
        return [*found, *({**each, "field": f"children.{each['field']}"} for each in others)]

    def _run(self, job_id: str, fields: Mapping[str, str], attempt: int) -> Job:
        """Run the job and its children. Return the job with its last fields."""
        self._jobs.redis.hset(job_id, mapping=fields)
        self._jobs.submit(str(self.record.data["job"]["queue"]), job_id, attempt=attempt - 1)
        if not self._jobs.run():
            raise RetryableError(
                self._jobs.last_error or f"job {job_id}: was put back; it can't end here", job_id=job_id
            )
        return Job(job_id, self._jobs.redis.hgetall(job_id))

    def _consumer_for(self, job: Job, _queue: str) -> Consumer:
        is_own = job.id == self.record.job_id
        record = self._ways[is_own]
        settings_module.use(recorded_settings(record.data["settings"], self._own))
        if is_own not in self._consumers:
            kind = _class_of(record, self._trusted)
            queue = str(record.data["job"]["queue"])
            consumer = kind(redis_client=self._jobs.redis, storage_client=self.bucket, queue=queue)
            self._consumers[is_own] = self._jobs.seat(consumer)
        return self._consumers[is_own]


def _record_of_children(record: Record, bucket: Storage) -> Record:
    """Take the conditions of children from the first child record found, else those of images."""
    keys = [child["record"] for child in record.data["children"] if child.get("record")]
    for key in keys[:_CHILDREN_TRIED]:
        with contextlib.suppress(ObjectNotFound):
            return parse(key, bucket.read_bytes(key, max_bytes=MOST_BYTES))
    return Record(record.name, {**record.data, "consumer": {"origin": _IMAGE}}, "")


def recorded_settings(recorded: Mapping[str, Any], own: Settings) -> Settings:
    """Build the present settings, with those that affect pixels taken from a record.

    Raises:
        SettingsError: the record has a value that is not valid.
    """
    values = {name: recorded[name] for name in record.SETTINGS if name in recorded}
    given = {name: values[name] for name in recorded.get("given", []) if name in values}
    kept = {name.upper(): getattr(own, name) for name in own.model_fields_set if name.upper() not in values}
    settings = build([("the record", given), ("settings", kept)])
    changed = {
        name: value
        for name, value in values.items()
        if name not in record.DECIDE_BY_BEING_GIVEN and getattr(settings, name.lower()) != value
    }
    return build([("the record", {**given, **changed}), ("settings", kept)]) if changed else settings


def _class_of(record: Record, trusted: Collection[str]) -> Any:
    """Find the class of a record's consumer. It must be built in, installed or trusted by an option."""
    origin = str(record.data["consumer"]["origin"])
    if origin not in trusted and not registry.is_named(origin, {*registry.names(), *trusted}):
        raise InvalidJob(
            f"consumer {origin}: not built in, and no installed package offers it; "
            f"if you trust the record, add --consumer {origin}"
        )
    try:
        return registry.get_consumer_class(origin)
    except ConsumerError as error:
        raise PermanentError(f"consumer {origin}: {error}") from error
