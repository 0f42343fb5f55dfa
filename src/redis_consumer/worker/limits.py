"""Checks whether a slot or its job has exceeded a limit."""

from __future__ import annotations

from dataclasses import dataclass

from redis_consumer.job import Job
from redis_consumer.worker.shared_status import Run


@dataclass(frozen=True)
class Limits:
    """Limits of a slot and its jobs.

    Attributes:
        grace_period_s: seconds for running jobs after a signal.
        job_timeout_s: seconds for one run of a job.
        stall_timeout_s: seconds without progress, 0 for no limit.
        max_rss_mb: memory above which a slot is replaced after its job, 0 for no limit.
        renew_s: seconds between two renewals.
        sweep_s: seconds between two sweeps.
    """

    grace_period_s: float = 25.0
    job_timeout_s: float = 3600.0
    stall_timeout_s: float = 0.0
    max_rss_mb: int = 0
    renew_s: float = 3.0
    sweep_s: float = 5.0

    def overrun(self, run: Run, now: float) -> tuple[str, str] | None:
        """Return which limit a run has exceeded, as a name for metrics and as text; None for none."""
        if now - run.started > self.job_timeout_s:
            return "job_timeout", f"its job ran for more than JOB_TIMEOUT={self.job_timeout_s:g} s"
        if self.stall_timeout_s and now - run.progressed > self.stall_timeout_s:
            return "stall_timeout", f"no progress for STALL_TIMEOUT={self.stall_timeout_s:g} s"
        return None

    def late_start(self, started: float, now: float) -> tuple[str, str] | None:
        """Return the same for a slot that hasn't started, such as one whose consumer's constructor hangs."""
        if now - started > self.job_timeout_s:
            return "job_timeout", f"it wasn't ready within JOB_TIMEOUT={self.job_timeout_s:g} s"
        return None


def timeout_reason(job: Job, cause: str) -> str:
    """Return the reason of a job that took too long twice."""
    return (
        f"JobTimeout: job {job.id}: {cause}, as in an earlier run; give a smaller input, or raise the limit and run "
        "redis-consumer dead retry"
    )
