"""The tests that every consumer must pass. An author derives a test class to run them."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.consumers.options import describe_options, options_for
from redis_consumer.consumers.registry import get_consumer_class
from redis_consumer.errors import InvalidJob, ModelServerUnavailable
from redis_consumer.job import FINAL_STATUSES, Job, JobStatus
from redis_consumer.testing.arguments import check_bad_inputs, check_image
from redis_consumer.testing.images import example_image, fake_model
from redis_consumer.testing.inputs import Input
from redis_consumer.testing.job_run import JobRun
from redis_consumer.testing.models import fields_of, named
from redis_consumer.testing.verdicts import (
    check,
    failed_in_words,
    is_safe,
    own_folder,
    own_tempdir,
    same,
    take_away,
    working_directory,
)
from redis_consumer.testing.workbench import Workbench

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

_RESULT_FIELDS = ("output_file_name", "output_url", "finished_at", "updated_at", "updated_by")
_WRONG = "no such value \N{CROSS MARK}"
_ORDER = [status.value for status in JobStatus]
#: Files that most consumers cannot use: bytes by file name.
_BAD_INPUTS = {
    "garbage.tif": bytes(range(7, 256)) * 8,
    "empty.tif": b"",
    "cut.tif": b"II*\0\x08\0\0\0\x05\0",
    "notes.txt": b"This is no image.\n",
}


class ConsumerContract:
    """Tests of one consumer. Derive a class whose name starts with ``Test``, and set the consumer in it.

    Attributes:
        consumer: the class, or a text as in ``CONSUMER_TYPE``.
        image: a valid input, in a form that `redis_consumer.testing.run` accepts; a folder only if it is one job.
        model: as the argument ``model`` of `run`.
        job_fields: fields of the job, besides those that every job has.
        children: as the argument ``children`` of `run`.
        bad_inputs: files that the consumer must refuse, bytes by name; leave out files that it accepts.
        own_statuses: statuses that it writes besides those of `JobStatus`, in any order.
        varying_files: files of the result that may differ between runs, for example because they contain times.
        varying_fields: fields of the job that may differ, besides those whose names end in ``_time``, ``_at``,
            ``_url`` or ``_file_name``.
    """

    consumer: ClassVar[type[Consumer] | str]
    image: ClassVar[Input] = example_image()
    model: ClassVar[Any] = fake_model
    job_fields: ClassVar[Mapping[str, object]] = {}
    children: ClassVar[Mapping[str, type[Consumer] | str]] = {}
    bad_inputs: ClassVar[Mapping[str, bytes]] = _BAD_INPUTS
    own_statuses: ClassVar[Sequence[str]] = ()
    varying_files: ClassVar[Sequence[str]] = ()
    varying_fields: ClassVar[Sequence[str]] = ()
    _good: ClassVar[JobRun]

    # A job without errors.

    def test_a_worker_can_run_it(self) -> None:
        """It is a class with `_consume`, and its constructor accepts the arguments of a worker."""
        with self._bench():
            pass  # the consumer was created

    def test_a_job_ends_done(self) -> None:
        """A job on `image` has a result."""
        run = self.good_run()
        check(
            run.status == "done" and run.outcome is Outcome.SETTLED,
            f"the job ended {run.status!r} ({run.outcome.value}): {run.reason or 'without a reason'}; "
            "return self.final_status, and give the test an image, a model and job_fields that fit",
        )

    def test_its_statuses_are_known_and_in_order(self) -> None:
        """Clients show the status. It never goes back to an earlier one, and nothing follows a final status."""
        known = [status for status in self.good_run().statuses if status not in self.own_statuses]
        strange = [status for status in known if status not in _ORDER and not status.startswith("retry-predicting")]
        check(not strange, f"statuses {strange} are unknown; write those of JobStatus, or name them in own_statuses")
        order = [_ORDER.index(status) for status in known if status in _ORDER and status != JobStatus.WAITING]
        check(order == sorted(order), f"the statuses go back: {' -> '.join(known)}; write each when its stage begins")

    def test_it_writes_the_fields_of_a_result(self) -> None:
        """Clients need the location of the result and the time when the job ended."""
        run = self.good_run()
        missing = [name for name in _RESULT_FIELDS if not run.fields.get(name)]
        check(not missing, f"fields {missing} are missing; write output_file_name and output_url by self.update_key")
        key, url = run.fields["output_file_name"], run.fields["output_url"]
        check(
            url.endswith(key),
            f"output_url {url!r} is not the link of {key!r}; write the values that self.storage.upload returns",
        )

    def test_its_result_is_a_zip_that_opens(self) -> None:
        """Clients save the object at `output_url` as a zip archive."""
        run = self.good_run()
        key = run.fields.get("output_file_name", "")
        check(run.result, f"the bucket has no object {key!r}; upload the result before the final status is written")
        is_whole = zipfile.is_zipfile(io.BytesIO(run.result))
        check(is_whole, f"{key} is not a zip archive; pack the files by utils.zip_files")
        with zipfile.ZipFile(io.BytesIO(run.result)) as archive:
            check(archive.testzip() is None, f"{key} is damaged; close the archive before it is uploaded")
            check(archive.namelist(), f"{key} is empty; pack at least one file")

    def test_names_in_its_result_are_safe(self) -> None:
        """Unpacking the result writes files only to one folder, and each name is unique."""
        content = io.BytesIO(self.good_run().result)
        _need(zipfile.is_zipfile(content), "the result is not a zip; test_its_result_is_a_zip_that_opens says why")
        with zipfile.ZipFile(content) as archive:
            names = archive.namelist()
        check(len(names) == len(set(names)), f"names are not unique: {sorted(names)}; give each file its own name")
        unsafe = [name for name in names if not is_safe(name)]
        check(
            not unsafe, f"names {unsafe} lead out of the result or cannot be written; name files relative to the result"
        )

    # Effects of a job on later jobs.

    def test_it_removes_its_temporary_files(self) -> None:
        """A worker runs for weeks, so files left by jobs would fill its disk."""
        with self._bench() as bench, own_tempdir() as folder:
            runs = {"a job": partial(self._run, bench)}
            runs |= {f"the bad input {name}": partial(self._run_bad, bench, name) for name in self._bad_inputs()}
            for what, run in runs.items():
                run()
                left = sorted(path.name for path in folder.rglob("*"))
                check(not left, f"{what} leaves temporary files: {left}; work in `with utils.get_tempdir() as folder:`")

    def test_it_leaves_the_working_directory_alone(self) -> None:
        """Other jobs run in the same process, and the directory may be read-only."""
        image = self._image()
        with own_folder() as folder, self._bench() as bench:
            os.chdir(folder)
            bench.run(image, **self.job_fields)
            after = working_directory()
            left = sorted(path.name for path in folder.rglob("*"))
        check(after == folder, "it changed the working directory; join paths to a folder instead of os.chdir")
        check(not left, f"files are left in the working directory: {left}; write into utils.get_tempdir()")

    def test_it_leaves_its_input_alone(self) -> None:
        """The same object may be the input of other jobs, or of a second run of this job."""
        with self._bench() as bench:
            self._run(bench)
            kept = {key: bench.storage.exists(key) and bench.storage.read_bytes(key) for key in bench.inputs}
            changed = [key for key, content in bench.inputs.items() if kept[key] != content]
        check(
            not changed, f"it changed or deleted {changed}; do not change inputs, and upload results under other keys"
        )

    def test_a_second_run_gives_the_same(self) -> None:
        """If a worker dies after the upload, the job runs again. The result must be the same."""
        self._need_done()
        with self._bench() as bench:
            first = self._run(bench)
            again = bench.run_again(first)
        check(
            again.status == "done",
            f"the second run ended {again.status!r}: {again.reason}; a job must be able to run twice",
        )
        same(first, again, "a second run of the same job", besides=(*self.varying_files, *self.varying_fields))
        keys = [run.fields.get("output_file_name") for run in (first, again)]
        _need(any(keys), "it names no object of its result; test_it_writes_the_fields_of_a_result says why")
        check(
            keys[0] != keys[1],
            "both runs wrote the same object, so a late run would overwrite the result; "
            "name the zip by utils.zip_files or self._next_zip_name()",
        )

    def test_one_job_leaves_nothing_to_the_next(self) -> None:
        """One instance runs many jobs, so data kept on `self` could get into the results of other users."""
        self._need_done()
        with self._bench() as bench:
            self._run(bench)
            for name in self._bad_inputs():
                self._run_bad(bench, name)
            last = self._run(bench)
        same(self.good_run(), last, "a job after others", besides=(*self.varying_files, *self.varying_fields))

    # Errors.

    def test_bad_input_fails_in_words(self) -> None:
        """A file that this consumer cannot use ends its job with a readable reason."""
        _need(self._bad_inputs(), "bad_inputs is empty")
        with self._bench() as bench:
            for name in self._bad_inputs():
                failed_in_words(self._run_bad(bench, name), name)

    def test_a_missing_input_fails_in_words(self) -> None:
        """An object that does not exist ends the job with a readable reason."""
        with self._bench() as bench:
            name = Path(self._name()).name
            fields = {**self.job_fields, "original_name": name, "input_file_name": f"uploads/missing/{name}"}
            failed_in_words(bench.run(b"", **fields), "a missing object")

    def test_wrong_options_are_refused(self) -> None:
        """A job field with a wrong value for an option ends the job, and the reason names the field."""
        kind = self._kind()
        options = [option for option in describe_options(kind.Options) if option.is_per_job]
        _need(options, "it has no per-job options")
        for option in options:
            check(option.description, f"option {option.name} has no description; give it Field(description=…)")
            wrong = {**self.job_fields, option.name: _WRONG}
            try:
                options_for(kind.Options, {}, Job("", {name: str(value) for name, value in wrong.items()}))
            except InvalidJob:
                with self._bench() as bench:
                    run = self._run(bench, **{option.name: _WRONG})
                failed_in_words(run, f"{option.name}={_WRONG!r}")
                check(option.name in run.reason, f"the reason does not name the field {option.name}: {run.reason}")

    def test_operator_options_are_refused(self) -> None:
        """A job that sets an option without `per_job` ends before any work, and the reason names the option."""
        options = [option for option in describe_options(self._kind().Options) if not option.is_per_job]
        _need(options, "it has no options that only the operator sets")
        for option in options:
            check(option.description, f"option {option.name} has no description; give it Field(description=…)")
            with self._bench() as bench:
                run = self._run(bench, **{option.name: option.default or _WRONG})
            check(
                run.status == "failed" and option.name in run.reason and "started" not in run.statuses,
                f"a job set the operator's option {option.name}, and its statuses were {' -> '.join(run.statuses)}; "
                "do not override Consumer.options",
            )

    def test_a_cancelled_job_ends(self) -> None:
        """A cancelled job gets no result."""
        with self._bench() as bench:
            bench.on_upload = bench.cancel
            run = self._run(bench)
            _need(bench.on_upload is None, "it uploads nothing")
        check(
            run.status == "failed" and "JobCancelled" in run.reason,
            f"a cancelled job ended {run.status!r}: {run.reason or 'without a reason'}; "
            "write fields by self.update_key, and do not catch JobCancelled",
        )
        check(not run.fields.get("output_url"), "a cancelled job shows a result; write it with the final status")

    def test_a_lost_job_shows_nothing(self) -> None:
        """If another worker has claimed the job meanwhile, this run must not change its fields."""
        with self._bench() as bench:
            bench.on_upload = partial(take_away, bench)
            run = self._run(bench)
            _need(bench.on_upload is None, "it uploads nothing")
        shown = [name for name in ("output_url", "output_file_name", "reason") if run.fields.get(name)]
        check(
            run.outcome is Outcome.LOST and run.status not in FINAL_STATUSES and not shown,
            f"a run that lost its job wrote status {run.status!r} and {shown}; "
            "write fields by self.update_key instead of self.redis, and do not catch LeaseLost",
        )

    def test_a_model_server_that_is_away_gives_the_job_back(self) -> None:
        """If the model server is unavailable, the job must return to its queue."""
        asked: list[str] = []

        def away(_batch: Array) -> Array:
            asked.append("")
            raise ModelServerUnavailable("model server: unavailable; this is a test")

        names = list(named(self._model())) or [fields_of({})["model_name"]]
        with self._bench(model=dict.fromkeys(names, away)) as bench:
            run = self._run(bench)
        _need(asked, "it calls no model")
        outcomes = {one.outcome for one in (run, *run.children)}
        check(
            Outcome.GIVEN_BACK in outcomes and run.status not in FINAL_STATUSES,
            f"the job ended {run.status!r}: {run.reason}; do not catch ModelServerUnavailable",
        )

    # Helpers of the tests.

    def good_run(self) -> JobRun:
        """Run a job on `image`, once for all tests of the class."""
        cls = type(self)
        if "_good" not in cls.__dict__:
            with self._bench() as bench:
                cls._good = self._run(bench)
        return cls._good

    def _need_done(self) -> None:
        _need(self.good_run().status == "done", "jobs do not end done; test_a_job_ends_done says why")

    @contextlib.contextmanager
    def _bench(self, **parts: Any) -> Iterator[Workbench]:
        """Yield a workbench. Afterwards the working directory is restored for other tests."""
        before = Path.cwd()
        with Workbench(self._kind(), **{"model": self._model(), "children": self.children, **parts}) as bench:
            try:
                yield bench
            finally:
                os.chdir(before)

    def _run(self, bench: Workbench, **fields: object) -> JobRun:
        return bench.run(self._image(), **{**self.job_fields, **fields})

    def _run_bad(self, bench: Workbench, name: str) -> JobRun:
        return bench.run(self._bad_inputs()[name], **{**self.job_fields, "original_name": name})

    def _bad_inputs(self) -> Mapping[str, bytes]:
        check_bad_inputs(self.bad_inputs)
        return self.bad_inputs

    def _kind(self) -> type[Consumer]:
        if not hasattr(self, "consumer"):
            raise TypeError(f"{type(self).__name__} names no consumer; write consumer = MyConsumer in it")
        return self.consumer if isinstance(self.consumer, type) else get_consumer_class(self.consumer)

    def _image(self) -> Input:
        check_image(self.image)
        return Path(self.image).resolve() if isinstance(self.image, (str, Path)) else self.image

    def _name(self) -> str:
        return str(self.job_fields.get("original_name") or self.good_run().job.original_name)

    def _model(self) -> Any:
        # Read from the class, since a function read from this object would be bound to it.
        model = inspect.getattr_static(type(self), "model")
        return model.__func__ if isinstance(model, staticmethod) else model


def _need(condition: object, otherwise: str) -> None:
    """Skip a test that does not apply."""
    if not condition:
        pytest.skip(otherwise)
