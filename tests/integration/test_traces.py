"""Spans of a real worker reach a real collector, in the trace of the job's producer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_consumer import traces
from support import onnx_models
from support.collector import Collected, attributes_of, collector
from support.redis_server import RedisServer, free_port
from support.worker import JOB, running_worker, status_is, submit, variables, wait_for

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collector() as collected:
        yield collected


def settings_of(server: RedisServer, folder: Path, kind: str, url: str, **more: str) -> dict[str, str]:
    return variables(server, folder, kind, OTEL_EXPORTER_OTLP_ENDPOINT=url, **more)


def work(
    server: RedisServer, folder: Path, db: Any, kind: str, url: str, *, status: str = "done", **fields: str
) -> None:
    """Run a job in a worker that stops as soon as it is over."""
    with running_worker(folder, settings_of(server, folder, kind, url)):
        submit(db, **fields)
        wait_for(status_is(db, status), "the end of the job", folder)


def test_a_span_for_the_run_and_one_for_each_stage(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, collected: Collected
) -> None:
    work(redis_server, tmp_path, redis_db, "Slow", collected.url, traceparent=TRACEPARENT, seconds="0.01")
    (run,), (stage,) = collected.named("job predict"), collected.named("started")
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == (TRACE, SPAN)
    assert (stage.trace_id, stage.parent_span_id) == (run.trace_id, run.span_id)
    assert run.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano <= run.end_time_unix_nano
    assert attributes_of(run) == {
        "job.id": JOB,
        "job.queue": "predict",
        "job.consumer": "Slow",
        "job.attempt": 1,
        "job.status": "done",
    }
    assert {"service.name": "redis-consumer", "service.instance.id": "pod-1"}.items() <= collected.resource().items()


def test_a_job_without_a_trace_begins_one(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, collected: Collected
) -> None:
    work(redis_server, tmp_path, redis_db, "Slow", collected.url, traceparent="nonsense")
    (run,) = collected.named("job predict")
    assert run.parent_span_id == b""


def test_a_failed_run_is_an_error_and_says_why(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, collected: Collected
) -> None:
    job = {"status": "failed", "seconds": "never"}
    work(redis_server, tmp_path, redis_db, "Slow", collected.url, **job)
    (run,) = collected.named("job predict")
    assert run.status.code == 2
    assert attributes_of(run)["job.status"] == "dead"
    assert "could not convert" in attributes_of(run)["job.reason"]


def test_children_carry_the_trace_on(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, collected: Collected
) -> None:
    work(redis_server, tmp_path, redis_db, "Dividing", collected.url, traceparent=TRACEPARENT)
    first, child, second = collected.named("job predict")
    assert {run.trace_id.hex() for run in (first, child, second)} == {TRACE}
    assert child.parent_span_id == first.span_id
    assert second.parent_span_id.hex() == SPAN


def test_children_get_the_producers_trace_where_nobody_traces(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    work(redis_server, tmp_path, redis_db, "Dividing", "", traceparent=TRACEPARENT)
    (child,) = redis_db.keys("predict:child.tif:*")
    assert redis_db.hget(child, "traceparent") == TRACEPARENT


def test_an_absent_collector_holds_up_neither_jobs_nor_the_end(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    settings = settings_of(redis_server, tmp_path, "Slow", f"http://127.0.0.1:{free_port()}")
    with running_worker(tmp_path, settings) as process:
        submit(redis_db)
        wait_for(status_is(redis_db, "done"), "the job", tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "killed" not in (tmp_path / "worker.log").read_text()


def test_the_end_waits_for_a_silent_collector_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def shutdown(self) -> None:
            time.sleep(60)

    monkeypatch.setattr(traces, "_provider", Silent())
    traces.stop(timeout_s=0.01)
    assert traces.tracer is None


def test_without_the_extra_the_start_says_what_to_do(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')")
    settings = settings_of(redis_server, tmp_path, "Slow", "http://127.0.0.1:1")
    settings["PYTHONPATH"] = f"{tmp_path}:{settings['PYTHONPATH']}"
    with running_worker(tmp_path, settings) as process:
        assert process.wait(60) == 2
    assert "kiosk-redis-consumer[otel]" in (tmp_path / "worker.log").read_text()


def test_the_model_that_a_run_asked_is_told(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, collected: Collected
) -> None:
    onnx_models.save(tmp_path / "models", "Scaling", 1, onnx_models.scaling(2.0))
    work(redis_server, tmp_path, redis_db, "Asking", collected.url)
    (run,) = collected.named("job predict")
    assert attributes_of(run)["job.model"] == "Scaling:1"
