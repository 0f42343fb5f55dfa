"""Runs jobs through a consumer in this process, with the claims and results of a worker."""

from __future__ import annotations

import io
import itertools
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.consumers.local_jobs import LocalJobs
from redis_consumer.consumers.options import as_text
from redis_consumer.consumers.registry import get_consumer_class, make_consumer
from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.consumers.zip_file import ZipFileConsumer
from redis_consumer.job import EMPTY_FIELDS, Job
from redis_consumer.models import ModelStore
from redis_consumer.queue import timestamp
from redis_consumer.serving import open_model_server
from redis_consumer.storage import Storage
from redis_consumer.testing.arguments import check_fields, checked_children
from redis_consumer.testing.inputs import Input, Uploaded, files_in, is_plain_folder, packed, uploaded
from redis_consumer.testing.job_run import JobRun
from redis_consumer.testing.memory_redis import MemoryRedis
from redis_consumer.testing.models import FakeServer, Model, fields_of, named, store


def run(
    consumer: type[Consumer] | str,
    image: Input,
    *,
    model: Model | Mapping[str, Model] | None = None,
    children: Mapping[str, type[Consumer] | str] | None = None,
    **job_fields: object,
) -> JobRun:
    """Run one job through a consumer, with the same code as in a worker: claim, work, settle.

    Args:
        consumer: the class, or a text as in ``CONSUMER_TYPE``.
        image: the path of a file or of an OME-Zarr; the path of a folder, whose files become one job each (for a
            consumer of archives, one archive); an array, which becomes an NPY file; or the bytes of a file.
        model: a function that maps (N, y, x, C) float32 to an array of N items, or to several by name; the path or
            bytes of an ONNX model (a ``card.toml`` in the same folder is used); or several models by name. The default
            is the model that comes with the package.
        children: consumer of each queue of child jobs. Images of an archive go to ``QUEUE`` (``predict`` by default).
            The default is `ImageFileConsumer`, and for the consumer's own queue the consumer itself.
        job_fields: fields of the job, except fields that workers write, such as ``status``. Without ``model_name``,
            the job uses the first model.

    Returns:
        The run. A failed job raises no error.

    Raises:
        SettingsError: the consumer cannot be created; the message says what is wrong with it, or with a variable.
        FileNotFoundError: there is no such image or model.
        TypeError: an argument has another type.
        ValueError: a field is one that workers write, a queue of `children` got no child, or the path is empty.
    """
    with Workbench(consumer, model=model, children=children) as bench:
        return bench.run(image, **job_fields)


class _Bucket(Storage):
    """A bucket in memory that calls a function before each upload."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.on_upload: Callable[[], None] | None = None

    def upload_file(self, path: str | os.PathLike[str], key: str) -> str:
        """Upload a local file, see `Storage.upload_file`."""
        self._tell()
        return super().upload_file(path, key)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write an object, see `Storage.write_bytes`."""
        self._tell()
        super().write_bytes(key, data)

    def _tell(self) -> None:
        if self.on_upload is not None:
            self.on_upload()


class Workbench:
    """Runs jobs through one instance of a consumer. Close it, or use it as a context manager.

    Settings are read from the environment, as at the start of a worker. At the end of the context, queues of
    `children` that got no child raise a `ValueError`.

    Args:
        consumer: as for `run`.
        model: as for `run`.
        children: as for `run`.

    Attributes:
        consumer: the instance.
        redis: its Redis, in this process.
        storage: its bucket, in memory.
        jobs: its queues.
        inputs: objects that `run` has written to the bucket, bytes by key.
        on_upload: called once with the first job of `run`, before it uploads a file. None by default. Uploads of its
            children do not count.
    """

    def __init__(
        self,
        consumer: type[Consumer] | str,
        *,
        model: Model | Mapping[str, Model] | None = None,
        children: Mapping[str, type[Consumer] | str] | None = None,
    ) -> None:
        self.redis = MemoryRedis()
        self.redis.on_command = self._look
        self.storage = _Bucket()
        self.inputs: dict[str, bytes] = {}
        self.on_upload: Callable[[Job], None] | None = None
        self.jobs = LocalJobs(self.redis, self._consumer_for)
        self._children = checked_children(children)
        self._submitted: dict[str, dict[str, str]] = {}
        self._statuses: dict[str, list[str]] = {}
        self._numbers = itertools.count(1)
        self._is_done = False
        models = named(model)
        self._model_fields = fields_of(models)
        with ExitStack() as stack, defaults.read_anew():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-consumer-models-"))
            self._models = stack.enter_context(closing(ModelStore(self.storage, Path(folder))))
            onnx = open_model_server("onnx://", find_model=self._models.find)
            self._server = stack.enter_context(closing(FakeServer(store(models, self.storage), onnx)))
            self.consumer = self._make(consumer, _queue_for(consumer))
            self.consumer.prepare()
            self._stack = stack.pop_all()
        self._consumers = {self.consumer.queue: self.consumer}
        self.storage.on_upload = self._note_upload

    def __enter__(self) -> Workbench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self._check_children()

    def close(self) -> None:
        """Close consumers and models."""
        for consumer in self._consumers.values():
            consumer.close()
        self._stack.close()

    def run(self, image: Input, **job_fields: object) -> JobRun:
        """Run one job, or one for each file of a folder, see `redis_consumer.testing.run`."""
        check_fields(job_fields)
        if not is_plain_folder(image):
            return self._run(self._submit(uploaded(image, str(job_fields.get("original_name") or "")), job_fields))
        folder = Path(str(image))
        if isinstance(self.consumer, ZipFileConsumer):
            return self.run(packed(folder), **{"original_name": f"{folder.name}.zip", **job_fields})
        return _together(folder.name, [self.run(path, **job_fields) for path in files_in(folder)])

    def run_again(self, run: JobRun) -> JobRun:
        """Run a job again, as if its worker had died between the upload and the completion of the job.

        Raises:
            ValueError: the job is not one of this workbench.
        """
        if run.job.id not in self._submitted:
            if not run.children:
                raise ValueError(f"{run.job.id}: not a job of this workbench; give a run that its run() returned")
            return _together(run.job.id, [self.run_again(each) for each in run.children])
        return self._run(run.job.id, attempt=run.job.attempt)

    def cancel(self, job: Job) -> None:
        """Cancel a job, as `redis-consumer cancel` does."""
        self.jobs.cancel(job.id)

    def take_away(self, job: Job) -> None:
        """Let another worker claim a running job, as after the end of its lease."""
        self.jobs.take_away(job.id)

    def _submit(self, uploaded: Uploaded, job_fields: Mapping[str, object]) -> str:
        """Write an input to the bucket and return the key of a job for it."""
        for key, content in uploaded.objects.items():
            self.storage.write_bytes(key, content)
        self.inputs.update(uploaded.objects)
        where = {"original_name": uploaded.name, "input_file_name": uploaded.key}
        life = {"status": "new", "created_at": timestamp(), "identity_upload": "test"}
        given = {name: "" if value is None else as_text(value) for name, value in job_fields.items()}
        job_id = f"{self.consumer.queue}:{uploaded.name}:{next(self._numbers)}"
        self._submitted[job_id] = {**EMPTY_FIELDS, **self._model_fields, **where, **life, **given}
        return job_id

    def _run(self, job_id: str, *, attempt: int = 0) -> JobRun:
        """Push a job, and run it and its children to the end."""
        started = time.perf_counter()
        fields = self._submitted[job_id]
        self.redis.delete(job_id)
        self.redis.hset(job_id, mapping=fields)
        self._statuses = {job_id: [fields["status"]]}
        self.jobs.clear()
        self.jobs.submit(self.consumer.queue, job_id, attempt=attempt)
        with defaults.read_anew():
            while self.jobs.run() and self._take_pushed():
                pass
        elapsed_s = time.perf_counter() - started
        children = tuple(self._run_of(key) for key in self.jobs.outcomes if key != job_id)
        run = self._run_of(job_id, elapsed_s, children)
        self._is_done = self._is_done or run.status == self.consumer.final_status
        return run

    def _check_children(self) -> None:
        """Refuse queues of `children` that got no child. A failed job may have stopped before."""
        used = self._consumers.keys() - {self.consumer.queue}
        unused = sorted(self._children.keys() - used)
        if unused and (self._is_done or used - self._children.keys()):
            raise ValueError(
                f"children: no child went to queue {', '.join(unused)}; children went to these queues, besides "
                f"the consumer's own {self.consumer.queue!r}: {', '.join(sorted(used)) or 'none'}"
            )

    def _take_pushed(self) -> bool:
        """Submit jobs that a consumer has pushed to lists by itself. Return whether there are any."""
        pushed = [(str(name), self.redis.fake.rpop(name)) for name in self.redis.fake.scan_iter(_type="list")]
        for queue, job_id in pushed:
            self.jobs.submit(queue, str(job_id))
        return bool(pushed)

    def _consumer_for(self, job: Job, queue: str) -> Consumer:
        self._statuses.setdefault(job.id, [job.status])
        if queue not in self._consumers:
            self._consumers[queue] = self._make(self._children.get(queue, "image"), queue)
        return self._consumers[queue]

    def _make(self, kind: type[Consumer] | str, queue: str) -> Consumer:
        arguments = {"redis_client": self.redis, "storage_client": self.storage, "queue": queue}
        consumer = self.jobs.seat(make_consumer(kind, **arguments))
        if isinstance(consumer, TensorFlowServingConsumer):
            consumer.model_server, consumer.models = self._server, self._models
        return consumer

    def _note_upload(self) -> None:
        job = self.consumer.job
        if job is None or job.id not in self._submitted:
            return  # the upload of a child
        told, self.on_upload = self.on_upload, None
        if told is not None:
            told(job)

    def _look(self) -> None:
        """Note each new status of the jobs that run here."""
        for job_id, statuses in list(self._statuses.items()):
            status = str(self.redis.fake.hget(job_id, "status") or "")
            if status and status != statuses[-1]:
                statuses.append(status)

    def _run_of(self, job_id: str, elapsed_s: float = 0.0, children: tuple[JobRun, ...] = ()) -> JobRun:
        fields: dict[str, Any] = self.redis.hgetall(job_id)
        key = fields.get("output_file_name", "")
        result = self.storage.read_bytes(key) if key and self.storage.exists(key) else b""
        job = Job(job_id, fields, self.jobs.attempts[job_id])
        outcome = self.jobs.outcomes.get(job_id, Outcome.LOST)
        return JobRun(job, tuple(self._statuses[job_id]), outcome, result, elapsed_s, children)


def _queue_for(consumer: type[Consumer] | str) -> str:
    """Return a queue that no children of built-in consumers use; for archives, the queue of the settings."""
    kind = consumer if isinstance(consumer, type) else get_consumer_class(consumer)
    return defaults.current().queue if issubclass(kind, ZipFileConsumer) else "test"


def _together(name: str, runs: list[JobRun]) -> JobRun:
    """Combine the runs of a folder's files. It is done if all are, and has all outputs, in a folder for each file."""
    failed = [run for run in runs if run.status != "done"]
    reason = "\n".join(f"{run.job.original_name}: {run.reason or run.status}" for run in failed)
    fields = {"original_name": name, "status": "failed" if failed else "done", "reason": reason}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for run in runs:
            for file, content in run.files.items():
                archive.writestr(f"{run.job.original_name}/{file}", content)
    elapsed_s = sum(run.elapsed_s for run in runs)
    job = Job(name, fields)
    return JobRun(job, ("new", job.status), Outcome.SETTLED, buffer.getvalue(), elapsed_s, tuple(runs))
