"""Lists the other queues of the comparison, with their settings.

Each runs in its own environment below ``.tools/peers``: they need different versions of redis-py, and dramatiq's
licence (LGPL) must not apply to our code. ``make peers`` makes them from ``uv.lock``. Settings are the best
of those tried on two cores (jobs/s, side by side, on a machine with other work):

========  ====================================================================================================
saq       concurrency 10: 1,830; 20: 1,890; 100: 1,940. Two worker processes of it were no faster (1,480)
taskiq    Redis stream, which its documentation advises for acknowledgement: default 3,600; 1,000 tasks at once
          and 1,000 messages a read: 5,100; prefetch 100: 4,300; acknowledged when received: 3,800. Redis list,
          without acknowledgement: 2,300
dramatiq  2 processes of 1 thread: 540; 2: 1,040; 8: 3,900; 32: 6,950; 64: 7,200; 128: 1,500
rq        ``SimpleWorker``, which forks no process a job: 340; the default worker: 56
arq       10 jobs at once: 1,060; 50: 1,300; 200: 1,320. It starts no more than that in one poll, so it has to
          poll more often than by default (0.5 s)
========  ====================================================================================================

By default or by their advice, taskiq and dramatiq start a process for each core. ``…_1`` is one process.
"""

from __future__ import annotations

import os
import subprocess
from bisect import bisect_right
from pathlib import Path

from benchmarks.queue_contender import Contender, Progress
from redis_consumer.errors import SettingsError
from redis_consumer.redis import RedisClient

FOLDER = Path(__file__).parents[1] / ".tools" / "peers"
NAMES = ("saq", "taskiq", "dramatiq", "rq", "arq")
#: As many as our slots at most.
PROCESSES = min(os.cpu_count() or 1, 8)


def check() -> None:
    """Raise where an environment is missing.

    Raises:
        SettingsError: which one, and how to make it.
    """
    missing = [name for name in NAMES if not (FOLDER / name / "bin" / "python").exists()]
    if missing:
        raise SettingsError(f"no environment for {', '.join(missing)} in {FOLDER}: run `make peers` first")


def peers() -> list[Contender]:
    """All of them, at their best settings; those with several processes also with one."""
    return [
        _saq(),
        _taskiq("taskiq", PROCESSES),
        _dramatiq("dramatiq", PROCESSES),
        _rq(),
        _arq(),
        _taskiq("taskiq_1", 1),
        _dramatiq("dramatiq_1", 1),
    ]


def _saq() -> Contender:
    return Contender(
        "saq",
        3_000,
        [_program("saq"), "benchmarks.peers.saq.settings"],
        lambda client, jobs: lambda: jobs - client.zcard("saq:default:incomplete"),
        push=_pusher("saq"),
        settings="concurrency 100, hiredis",
    )


def _taskiq(name: str, processes: int) -> Contender:
    options = ["--workers", str(processes), "--max-async-tasks", "1000", "--log-level", "WARNING"]
    return Contender(
        name,
        8_000,
        [_program("taskiq"), "worker", "benchmarks.peers.taskiq:broker", *options],
        _acknowledged,
        push=_pusher("taskiq"),
        settings=f"RedisStreamBroker, xread_count 1000, uvloop, {' '.join(options)}",
    )


def _dramatiq(name: str, processes: int) -> Contender:
    options = ["--processes", str(processes), "--threads", "64"]
    return Contender(
        name,
        8_000,
        [_program("dramatiq"), "benchmarks.peers.dramatiq", *options],
        lambda client, jobs: lambda: jobs - client.hlen("dramatiq:default.msgs"),
        push=_pusher("dramatiq"),
        settings=f"RedisBroker, hiredis, {' '.join(options)}",
    )


def _rq() -> Contender:
    return Contender(
        "rq",
        800,
        [_program("rq"), "worker", "--worker-class", "rq.SimpleWorker", "--quiet", "--config", "benchmarks.peers.rq"],
        lambda client, _jobs: lambda: client.zcard("rq:finished:default"),
        push=_pusher("rq"),
        settings="SimpleWorker, hiredis",
    )


def _arq() -> Contender:
    logs = ["--custom-log-dict", "benchmarks.peers.arq.QUIET"]
    return Contender(
        "arq",
        3_000,
        [_program("arq"), "benchmarks.peers.arq.WorkerSettings", *logs],
        lambda client, jobs: lambda: jobs - client.zcard("arq:queue"),
        push=_pusher("arq"),
        settings="max_jobs 200, poll_delay 0.01, hiredis",
    )


def _acknowledged(client: RedisClient, _jobs: int) -> Progress:
    """Count what a group has read from a stream and acknowledged; Redis 6.2 doesn't count it by itself."""
    numbers = [_number(entry) for entry, _ in client.xrange("taskiq")]

    def done() -> int:
        groups = client.xinfo_groups("taskiq")
        if not groups:
            return 0
        return bisect_right(numbers, _number(groups[0]["last-delivered-id"])) - int(groups[0]["pending"])

    return done


def _number(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def _program(name: str) -> str:
    return str(FOLDER / name / "bin" / name)


def _pusher(name: str) -> list[str]:
    return [str(FOLDER / name / "bin" / "python"), "-m", f"benchmarks.peers.{name}"]


def versions() -> dict[str, str]:
    """Versions of the peers, each with that of its client of Redis."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = {}
    for name in NAMES:
        command = [str(FOLDER / name / "bin" / "python"), "-c", code, name, "redis", "hiredis"]
        own, client, hiredis = subprocess.check_output(command, text=True).split()
        found[name] = f"{own}, redis-py {client}, hiredis {hiredis}"
    return found
