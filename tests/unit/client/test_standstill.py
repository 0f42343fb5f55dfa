"""One table says which facts about a queue give which explanation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from redis_consumer.client.queue_state import QueueView
from redis_consumer.client.standstill import explain
from redis_consumer.client.workers import QueueFacts, Task, WorkerView, worker_of

WAITING = QueueView("predict", 12, 0, 0, 0, 0, 0.0)
QUIET = replace(WAITING, waiting=0)
BUSY = replace(WAITING, running=2, workers=1, jobs_per_minute=4.0)
IDLE = WorkerView("pod-1", "predict", is_told=True, idle=1)
AT_WORK = replace(IDLE, idle=0, tasks=(Task("predict:a.tif:1", 1, 20.0),))
OLD = WorkerView("pod-0", "predict")


def waits(error: str) -> WorkerView:
    return replace(IDLE, waits_for=f"{error}: it does not respond")


CASES = {
    "nothing": (QueueFacts(QUIET), "ok", "idle", "No job waits, and no worker is there."),
    "ready": (QueueFacts(QUIET, (IDLE,)), "ok", "idle", "No job waits; 1 worker ready."),
    "at work": (QueueFacts(replace(QUIET, running=1), (AT_WORK,)), "ok", "working", "1 job running, none waiting."),
    "taken now": (QueueFacts(BUSY, (IDLE,)), "ok", "working", "takes the next job of predict now"),
    "busy": (QueueFacts(BUSY, (AT_WORK,)), "ok", "slots_busy", "2 running, 12 waiting, 4 jobs a minute end"),
    "busy, slow": (
        QueueFacts(replace(BUSY, jobs_per_minute=0.0), (AT_WORK,)), "warn", "slots_busy", "no job ended lately"),
    "no worker": (QueueFacts(WAITING), "bad", "no_worker", "No worker takes jobs from predict."),
    "no worker, job of a lost one": (
        QueueFacts(replace(QUIET, running=1), lost=("gpu-2", "2026-01-01 10:42")), "bad", "no_worker",
        "gpu-2, was lost"),
    "lost worker": (
        QueueFacts(WAITING, lost=("gpu-2", "2026-01-01 10:42")), "bad", "no_worker", "since 2026-01-01 10:42 UTC"),
    "model server": (
        QueueFacts(WAITING, (waits("ModelServerUnavailable"),)), "bad", "waits_for_model_server",
        "Worker pod-1 waits for the model server: it does not respond."),
    "bucket": (
        QueueFacts(WAITING, (waits("StorageUnavailable"), waits("StorageUnavailable"))), "bad", "waits_for_bucket",
        "All 2 workers wait for the bucket"),
    "redis": (QueueFacts(WAITING, (waits("RedisUnavailable"),)), "bad", "waits_for_redis", "wait"),
    "machine": (QueueFacts(WAITING, (waits("MachineUnavailable"),)), "bad", "waits_for_machine", "their machine"),
    "setting": (QueueFacts(WAITING, (waits("SettingsError"),)), "bad", "waits_for_settings", "a corrected setting"),
    "something else": (QueueFacts(WAITING, (waits("OSError"),)), "bad", "waits_for_dependency", "a service"),
    "one of two waits": (QueueFacts(BUSY, (waits("StorageUnavailable"), AT_WORK)), "ok", "slots_busy", "busy"),
    "starting": (
        QueueFacts(WAITING, (replace(IDLE, idle=0, starting=1),)), "warn", "workers_start", "The workers start"),
    "stopping": (QueueFacts(WAITING, (replace(AT_WORK, is_stopping=True),)), "warn", "workers_stop", "stop"),
    "too long": (
        QueueFacts(BUSY, (replace(AT_WORK, tasks=(Task("predict:b.tif:1", 1, 7200.0),)),)), "bad", "job_beyond_time",
        "Job predict:b.tif:1 runs for 2.0 h on pod-1, longer than the allowed 60 min."),
    "too long, none waits": (
        QueueFacts(replace(QUIET, running=1), (replace(AT_WORK, tasks=(Task("j", 1, 3700.0),)),)), "warn",
        "job_beyond_time", "62 min"),
    "comes back": (
        QueueFacts(BUSY, (AT_WORK,), returns=4, returned_job="predict:c.tif:1", last_error="OutOfResources: memory"),
        "warn", "jobs_come_back", "predict:c.tif:1 for the 4. time (OutOfResources: memory)"),
    "no hash, no worker": (QueueFacts(WAITING, sampled=12, gone=12), "bad", "no_worker", "No worker"),
    "no hash": (
        QueueFacts(replace(WAITING, workers=1), (AT_WORK,), sampled=12, gone=12), "warn", "keys_without_hash",
        "The next 12 keys in predict have no job any more"),
    "some without hash": (QueueFacts(BUSY, (AT_WORK,), sampled=12, gone=5), "ok", "slots_busy", "busy"),
    "foreign entries": (QueueFacts(WAITING, sampled=12, strange=12), "warn", "foreign",
        "are not jobs of this software"),
    "foreign key": (QueueFacts(QUIET, key_type="string"), "bad", "foreign", "holds a string of other software"),
    "foreign worker": (
        QueueFacts(replace(WAITING, running=1), others=1), "warn", "other_workers", "1 job with them"),
    "read-only": (
        QueueFacts(WAITING, refusal="READONLY You can't write"), "bad", "redis_read_only", "Redis refuses writes"),
    "old worker": (QueueFacts(replace(WAITING, workers=1), (OLD,)), "warn", "not_known", "1 worker of predict"),
    "old worker at work": (QueueFacts(BUSY, (OLD,)), "ok", "slots_busy", "2 running"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_explanation(name: str) -> None:
    facts, level, cause, words = CASES[name]
    found = explain(facts)
    assert (found.level, found.cause) == (level, cause)
    assert words in found.sentence
    assert found.what_to_do or level == "ok" or cause == "workers_start"


@pytest.mark.parametrize("text", ["", "not json", "[]", "3", '{"slots": 3}', '{"slots": [4], "memory_mb": "x"}'])
def test_what_a_worker_published_may_be_anything(text: str) -> None:
    assert worker_of("pod-1", "predict", text).tasks == ()
