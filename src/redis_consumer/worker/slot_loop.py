"""Runs the loop of one slot: claims a job, lets the consumer run it, settles it, handles signals and outages."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from redis_consumer import machine
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Interrupted, Outcome
from redis_consumer.consumers.telemetry import announce
from redis_consumer.errors import ConsumerError, LeaseLost, RedisUnavailable, describe
from redis_consumer.job import Job
from redis_consumer.worker.shared_status import SupervisorPipe

logger = logging.getLogger(__name__)

#: Seconds of one blocking claim; a signal ends it at once.
CLAIM_TIMEOUT_S = 5.0
#: The same for the first claim after a job. A slot that is idle for this long returns memory.
REST_AFTER_S = 1.0
#: Jobs after which a busy slot also returns memory. This divides the cost among them.
REST_EVERY = 20
#: Seconds of a claim in a burst. A burst ends when all queues are empty.
BURST_TIMEOUT_S = 0.1
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
#: Seconds between two attempts to end a blocking claim at a signal.
UNBLOCK_EVERY_S = 0.1
#: Seconds between two clean-ups of objects that late runs left in the bucket.
CLEAN_UP_S = 30.0


class SlotLoop:
    """Claims jobs, lets a consumer run them and settles them, until it has to stop.

    SIGTERM and SIGINT stop the claiming. A running job can finish within the grace period; otherwise it goes back to
    the front of its queue. A second signal gives it back at once.

    Args:
        consumer: runs the jobs of its queue.
        pipe: to the supervisor, which renews the lease of the reported job.
        grace_period_s: seconds for the running job after the first signal.
        is_burst: stop as soon as all queues of `served` are empty.
        served: all queues of the same worker, since a job of one can add jobs to another. The consumer's by default.

    Attributes:
        has_left: set when no more jobs are claimed or run.
    """

    def __init__(
        self,
        consumer: Consumer,
        pipe: SupervisorPipe,
        *,
        grace_period_s: float = 25.0,
        is_burst: bool = False,
        served: Sequence[str] = (),
    ) -> None:
        self.consumer = consumer
        self.pipe = pipe
        self.grace_period_s = grace_period_s
        self.is_burst = is_burst
        self.served = served or (consumer.job_queue.name,)
        self._stopping = threading.Event()
        self._has_outage = False
        self.has_left = threading.Event()
        self._clean_up_at = time.monotonic() + CLEAN_UP_S * random.random()
        self._jobs_since_rest = 0

    def run(self) -> int:
        """Claim and run jobs until a signal arrives, or the queue is empty in a burst. Return the exit code, 0.

        Raises:
            SettingsError: the consumer can't run with these settings.
        """
        self.consumer.prepare()
        handlers = {
            signal.SIGTERM: self._on_signal,
            signal.SIGINT: self._on_signal,
            signal.SIGUSR1: self._on_replacement,
            signal.SIGALRM: self._on_deadline,
        }
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self.serve()
        except Interrupted:
            logger.warning("Stopped before the running job ended")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.consumer.close()
        return 0

    def serve(self) -> None:
        """Claim and run jobs until `stop` is called, or the queue is empty in a burst. Handle no signals."""
        with self._started():
            pause_s = FIRST_PAUSE_S
            while not self._stopping.is_set():
                try:
                    self._clean_up()
                    job = self._claim()
                    outcome = None if job is None else self._run(job)
                except RedisUnavailable as error:
                    # The client has logged it, and pauses before the claim raises again.
                    self._has_outage = True
                    self.pipe.pause(describe(error))
                    continue
                if outcome is Outcome.GIVEN_BACK:
                    pause_s = self._wait_for_dependencies(pause_s)
                    self.pipe.pause("")
                elif outcome is not None:
                    pause_s = FIRST_PAUSE_S

    @contextlib.contextmanager
    def _started(self) -> Iterator[None]:
        """Warm up and wait for the supervisor, then hold what the loop needs until it ends."""
        queue = self.consumer.job_queue
        self.consumer.on_update = lambda: self.pipe.report(self.consumer.job)
        queue.is_chained = True
        announce(queue.name, type(self.consumer).__name__)
        try:
            self.consumer._warm_up()
            self.pipe.wait_for_start(type(self.consumer).__name__)
            if hasattr(self.consumer.redis, "note_served"):
                self.consumer.redis.note_served()
            if not self._stopping.is_set():
                logger.info("Ready: worker %s serves queue %s", queue.worker, queue.name)
            yield
        finally:
            with contextlib.suppress(ConsumerError):
                queue.release()
            self.has_left.set()

    def stop(self) -> None:
        """Claim no more jobs. `run` or `serve` returns after the running job."""
        self._stopping.set()
        self.consumer.job_queue.is_chained = False
        if self.consumer.job is None:
            # In a separate thread, because the main thread can be in the claim that has to end.
            threading.Thread(target=self._unblock, daemon=True).start()

    def _unblock(self) -> None:
        redis = self.consumer.redis
        if not hasattr(redis, "stop_waiting"):
            return
        redis.stop_waiting()
        # More than once, because the claim can still be on its way to Redis and block there a moment later.
        while not self.has_left.is_set():
            with contextlib.suppress(RedisUnavailable):
                redis.unblock()
            self.has_left.wait(UNBLOCK_EVERY_S)

    def _clean_up(self) -> None:
        """Remove objects that late runs left in the bucket, at intervals."""
        now = time.monotonic()
        if now < self._clean_up_at:
            return
        self._clean_up_at = now + CLEAN_UP_S * random.uniform(0.8, 1.2)
        # It can take minutes, and no lease is renewed for a job that is claimed but doesn't run yet.
        with contextlib.suppress(LeaseLost):
            self.consumer.job_queue.release()
        try:
            self.consumer._clean_up()
        except RedisUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - an error of a plug-in's `discard` ends no slot
            logger.warning("Could not remove what late runs left; trying again later: %s", error)

    def _claim(self) -> Job | None:
        """Claim a job; return None if the queue stays empty or a signal has arrived."""
        queue = self.consumer.job_queue
        timeout_s = REST_AFTER_S if self._jobs_since_rest else CLAIM_TIMEOUT_S
        job = queue.claim(BURST_TIMEOUT_S if self.is_burst else timeout_s)
        if self._has_outage:
            self._has_outage = False
            self.pipe.pause("")
        if self._jobs_since_rest >= (REST_EVERY if job is not None else 1):
            self._jobs_since_rest = 0
            self.consumer._rest()
        if job is None and self.is_burst and not queue.has_work(self.served):
            self._stopping.set()
        if job is not None and self._stopping.is_set():
            queue.give_back(job, is_next=True)
            return None
        return job

    def _run(self, job: Job) -> Outcome:
        self._jobs_since_rest += 1
        self.pipe.report(job)
        try:
            return self.consumer.run(job)
        except (Interrupted, RedisUnavailable):
            raise
        except BaseException as error:
            # For example a plug-in's sys.exit. It ends the slot, and the supervisor won't know which job it was.
            with contextlib.suppress(ConsumerError):
                self.consumer.job_queue.give_back(job, is_crash=True, error=describe(error))
            raise
        finally:
            self.pipe.report(None)

    def _wait_for_dependencies(self, pause_s: float) -> float:
        """Claim nothing until all services respond; return the pause for the next time."""
        self.pipe.pause("a job was given back")
        self._pause(pause_s)
        while not self._stopping.is_set():
            try:
                machine.check()
                self.consumer._check_dependencies()
            except ConsumerError as error:
                logger.warning("Claiming nothing: %s", error)
                self.pipe.pause(describe(error))
            else:
                self.consumer.job_queue.note_recovery()
                break
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            self._pause(pause_s)
        return min(2 * pause_s, MAX_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        self._stopping.wait(pause_s * random.uniform(0.5, 1.0))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing is logged here: the signal can have interrupted the writing of a log line.
        if self._stopping.is_set():
            self._interrupt()
            return
        self.stop()
        if self.grace_period_s > 0:
            signal.setitimer(signal.ITIMER_REAL, self.grace_period_s)
        else:
            self._interrupt()

    def _on_replacement(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def _on_deadline(self, _number: int, _frame: FrameType | None) -> None:
        # From the timer or from the supervisor: two signals of one kind can arrive as one.
        self.stop()
        self._interrupt()

    def _interrupt(self) -> None:
        if hasattr(self.consumer.redis, "stop_waiting"):
            self.consumer.redis.stop_waiting()
        if self.consumer.job is not None:
            raise Interrupted
