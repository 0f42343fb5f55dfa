"""Causes each fault and ends it."""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from chaos.consumer import STAGES
from chaos.plan import Fault
from chaos.scene import Scene
from chaos.servers import Redis, Worker, is_gone

#: A kill waits this long for its stage. Then it kills any running job, and then it is given up.
PATIENCE_S, STOP_PATIENCE_S, GIVE_UP_S = 1.5, 6.0, 8.0
#: Share of stopped workers that continue although nobody has finished their job; the others wait, with a limit.
SOON, WINNER_S = 0.3, 13.0
#: The attempt up to which a run is killed: a job that is killed in its last one fails, as documented.
LAST_KILLED = 3
#: Seconds for which the replica lags before its master dies.
LAG_S = 1.0
#: Seconds that a slot may take to notice that its supervisor was killed.
ORPHANED_S = 2.0


@dataclass(order=True)
class Due:
    """Something to do later; it is asked again at once where it returns False."""

    at: float
    order: int
    act: Callable[[], bool] = field(compare=False)


class Injector:
    """Causes the faults of a schedule when they are due, and repairs what it broke.

    Args:
        scene: what can be broken.
        faults: the schedule.
    """

    def __init__(self, scene: Scene, faults: list[Fault]) -> None:
        self.scene = scene
        self.counts: Counter[str] = Counter()
        self.orphans = 0
        self._started = time.monotonic()
        self._order = 0
        self._due: list[Due] = []
        for fault in faults:
            self._later(self._started + fault.at_s - time.monotonic(), self._begin, fault)

    def _later(self, after_s: float, act: Callable[..., Any], *arguments: Any) -> None:
        """Do something once after a pause; False makes it come again."""
        self._order += 1
        due = Due(time.monotonic() + after_s, self._order, lambda: act(*arguments) is not False)
        heapq.heappush(self._due, due)

    @property
    def is_over(self) -> bool:
        """Whether all faults are done and repaired."""
        return not self._due

    def tick(self) -> None:
        """Do what is due."""
        again = []
        while self._due and self._due[0].at <= time.monotonic():
            due = heapq.heappop(self._due)
            if not due.act():
                again.append(due)
        for due in again:
            heapq.heappush(self._due, due)
        for worker in self.scene.workers:
            self._mind_exit(worker)

    def _mind_exit(self, worker: Worker) -> None:
        """A worker that ends by itself is started again, as its platform would."""
        if worker.process is not None and worker.process.poll() is not None:
            self._note("worker-exit", worker=worker.name, code=worker.process.poll())
            worker.wait()
            self._later(1.0, worker.start_again, False)

    def _note(self, kind: str, **details: Any) -> None:
        self.counts[kind] += 1
        self.scene.ledger.note("fault", kind=kind, **details)

    def _begin(self, fault: Fault) -> bool:
        """Do one fault; False where it waits for its moment."""
        act = getattr(self, "_" + fault.kind.partition("-")[0])
        age_s = time.monotonic() - self._started - fault.at_s
        if act(fault, age_s) is not False:
            return True
        if age_s < GIVE_UP_S:
            return False
        self.counts["skipped"] += 1
        return True

    # Workers and their slots.

    def _slot(self, fault: Fault, age_s: float) -> bool:
        found = self._find_run(fault, age_s)
        if found is None:
            return False
        worker, pid = found
        os.kill(pid, signal.SIGKILL)
        self._after_kill("slot", worker, pid)
        return True

    def _worker(self, fault: Fault, age_s: float) -> bool:
        found = self._find_run(fault, age_s)
        if found is None or not self._is_spare(found[0]):
            return False
        worker = found[0]
        worker.send(signal.SIGKILL)
        self._after_kill("worker", worker, 0)
        self._restart(worker, fault)
        return True

    def _supervisor(self, fault: Fault, age_s: float) -> bool:
        found = self._find_run(fault, age_s)
        if found is None or not self._is_spare(found[0]):
            return False
        worker = found[0]
        pid, *slots = worker.family()
        os.kill(pid, signal.SIGKILL)
        self._after_kill("supervisor", worker, 0)
        self._later(ORPHANED_S, self._count_orphans, worker.name, slots)
        self._restart(worker, fault)
        return True

    def _find_run(self, fault: Fault, age_s: float) -> tuple[Worker, int] | None:
        """A slot that runs a job in the stage; after some patience in any, of any worker."""
        workers = self.scene.workers[fault.worker :] + self.scene.workers[: fault.worker]
        for worker in workers if age_s > PATIENCE_S else workers[:1]:
            if not worker.is_able:
                continue
            slots = set(worker.family()[1:])
            runs = [
                pid
                for pid, run in self.scene.watcher.seen.runs.items()
                if pid in slots and (run.stage == fault.stage or age_s > PATIENCE_S)
            ]
            if any(run.attempt > LAST_KILLED for pid, run in self.scene.watcher.seen.runs.items() if pid in slots):
                continue
            if runs:
                return worker, runs[int(fault.choice * len(runs))]
        return None

    def _find_saving(self) -> tuple[Worker, int] | None:
        """A slot that is about to write status and result at once."""
        for worker in self.scene.workers:
            for pid in worker.family()[1:] if worker.is_able else ():
                run = self.scene.watcher.seen.runs.get(pid)
                if run is not None and run.style == "update_key" and run.stage == STAGES[-1]:
                    return worker, pid
        return None

    def _is_spare(self, worker: Worker) -> bool:
        """Return whether another one is there to return the jobs of this one."""
        return any(other.is_able for other in self.scene.workers if other is not worker)

    def _after_kill(self, kind: str, worker: Worker, pid: int) -> None:
        killed_at = time.monotonic()
        self._note(kind, worker=worker.name, killed=pid)
        watcher = self.scene.watcher
        watcher.listen(self.scene.reader.new())
        watcher.bury(worker.name, pid)
        if kind != "slot":
            watcher.disturb(kinds=("slot",), worker=worker.name)
        with contextlib.suppress(redis.RedisError):
            watcher.strand(self.scene.client, "slot" if kind == "slot" else "worker", worker.name, pid, killed_at)

    def _restart(self, worker: Worker, fault: Fault) -> None:
        worker.wait()
        self._later(fault.pause_s, worker.start_again, fault.is_renamed)

    def _count_orphans(self, name: str, slots: list[int]) -> None:
        left = [pid for pid in slots if not is_gone(pid)]
        self.orphans += len(left)
        for pid in left:
            self.scene.ledger.note("orphan", worker=name, slot=pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop(self, fault: Fault, age_s: float) -> bool:
        """A whole worker stands still while it saves a result, so that nothing but the final write is left to it."""
        if any(worker.is_stopped for worker in self.scene.workers):
            return False
        watcher = self.scene.watcher
        watcher.listen(self.scene.reader.new())
        found = self._find_saving() or (self._find_run(fault, age_s) if age_s > STOP_PATIENCE_S else None)
        if found is None or not self._is_spare(found[0]):
            return False
        worker, pid = found
        job = watcher.seen.runs[pid].job
        worker.send(signal.SIGSTOP)
        watcher.listen(self.scene.reader.new())
        if pid not in watcher.seen.runs:  # the run ended before the signal
            worker.send(signal.SIGCONT)
            return False
        self._note("stop", worker=worker.name)
        self.scene.watcher.disturb(kinds=("slot",), worker=worker.name)
        patience_s = 0.0 if fault.choice < SOON else WINNER_S
        self._later(fault.pause_s, self._resume, worker, job, time.monotonic() + fault.pause_s + patience_s)
        return True

    def _resume(self, worker: Worker, job: str, deadline: float) -> bool:
        """Let it continue, in most cases only after another worker has finished its job."""
        if job not in self.scene.watcher.seen.results and time.monotonic() < deadline:
            return False
        worker.send(signal.SIGCONT)
        self._note("resume", worker=worker.name, job=job)
        return True

    # Redis and the way to it.

    def _redis(self, fault: Fault, _age_s: float) -> bool:
        server = self.scene.master
        if not server.is_running:
            return False
        self._note(fault.kind)
        self.scene.begin_redis_fault(is_down=True)
        server.send(signal.SIGKILL if fault.kind == "redis-kill" else signal.SIGTERM)
        server.wait()
        self._later(fault.pause_s, server.start)
        return True

    def _failover(self, _fault: Fault, _age_s: float) -> bool:
        """Kill the master while its replica lags: its last acknowledged writes exist nowhere else."""
        old = self.scene.master
        replica = next(server for server in self.scene.servers if server is not old)
        self.scene.begin_redis_fault(is_down=True)
        replica.send(signal.SIGSTOP)
        self._note("replica-lags")
        self._later(LAG_S, self._kill_master, old, replica)
        return True

    def _kill_master(self, old: Redis, replica: Redis) -> None:
        self._note("master-kill")
        self.scene.begin_redis_fault(is_down=True)
        old.send(signal.SIGKILL)
        old.wait()
        replica.send(signal.SIGCONT)
        self._later(1.0, self._end_failover, old)

    def _end_failover(self, old: Redis) -> bool:
        """Once another is the master, the old one comes back as its replica."""
        master = self.scene.find_master()
        if master is None:
            return False
        self._note("failover", port=master.port)
        old.start(replica_of=master.port)
        return True

    def _cut(self, _fault: Fault, _age_s: float) -> bool:
        return self._break_connections("cut", signal.SIGUSR1)

    def _lose(self, _fault: Fault, _age_s: float) -> bool:
        return self._break_connections("lose-replies", signal.SIGUSR2)

    def _break_connections(self, kind: str, number: int) -> bool:
        self._note(kind)
        self.scene.begin_redis_fault(is_down=False)
        if self.scene.proxy is not None:
            self.scene.proxy.send(number)
            return True
        with contextlib.suppress(redis.RedisError):
            self.scene.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return True

    # What jobs need besides.

    def _storage(self, fault: Fault, _age_s: float) -> bool:
        self._note("storage", pause_s=fault.pause_s)
        self.scene.bucket.fail()
        self._later(fault.pause_s, self.scene.bucket.mend)
        return True

    def _model(self, fault: Fault, _age_s: float) -> bool:
        model = self.scene.model
        if not model.is_running or model.is_stopped:
            return False
        self._note(fault.kind, pause_s=fault.pause_s)
        if fault.kind == "model-hang":
            model.send(signal.SIGSTOP)
            self._later(fault.pause_s, model.send, signal.SIGCONT)
            return True
        model.send(signal.SIGKILL)
        model.wait()
        self._later(fault.pause_s, model.start)
        return True

    # Careless other software.

    def _push(self, fault: Fault, _age_s: float) -> bool:
        watcher = self.scene.watcher
        jobs = {
            "push-running": list(watcher.holders),
            "push-waiting": watcher.waiting,
            "push-done": list(watcher.seen.results),
        }[fault.kind]
        if not jobs:
            return False
        job = jobs[int(fault.choice * len(jobs))]
        with contextlib.suppress(redis.RedisError):
            self.scene.client.lpush(watcher.queue, job)
            self._note(fault.kind, job=job)
        watcher.forget(job)
        return True

    def _repush(self, fault: Fault, _age_s: float) -> bool:
        """What the janitor does to a job that it takes for stranded, although it runs."""
        running = list(self.scene.watcher.holders.items())
        if not running:
            return False
        job, holder = running[int(fault.choice * len(running))]
        self.scene.watcher.forget(job)
        with contextlib.suppress(redis.RedisError):
            if self.scene.client.lrem(holder.partition(" ")[2], 1, job):
                self.scene.client.lpush(self.scene.watcher.queue, job)
                self._note("repush", job=job)
                return True
        return False
