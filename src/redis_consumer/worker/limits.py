"""Checks whether a slot or its job has exceeded a limit."""

from __future__ import annotations

from redis_consumer.job import Job
from redis_consumer.options import WorkerLimits
from redis_consumer.worker.shared_status import Run


def overrun(limits: WorkerLimits, run: Run, now: float) -> tuple[str, str] | None:
    """Return which limit a run has exceeded, as a name for metrics and as text; None for none."""
    if now - run.started > limits.job_timeout_s:
        return "job_timeout", f"its job ran for more than JOB_TIMEOUT={limits.job_timeout_s:g} s"
    if limits.stall_timeout_s and now - run.progressed > limits.stall_timeout_s:
        return "stall_timeout", f"no progress for STALL_TIMEOUT={limits.stall_timeout_s:g} s"
    return None


def late_start(limits: WorkerLimits, started: float, now: float) -> tuple[str, str] | None:
    """Return the same for a slot that hasn't started, such as one whose consumer's constructor hangs."""
    if now - started > limits.job_timeout_s:
        return "job_timeout", f"it wasn't ready within JOB_TIMEOUT={limits.job_timeout_s:g} s"
    return None


def timeout_reason(job: Job, cause: str) -> str:
    """Return the reason of a job that took too long twice."""
    return (
        f"JobTimeout: job {job.id}: {cause}, as in an earlier run; give a smaller input, or raise the limit and run "
        "redis-consumer dead retry"
    )
