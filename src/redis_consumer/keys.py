"""Which names in Redis are our own?

They all begin with ``redis-consumer:``, and end with the name of their queue:

================  ======  ===============================================================================
leases            zset    running jobs by the moment (ms, the server's clock) at which their lease ends
holders           hash    running jobs: ``<attempt> <processing list>``, the fencing token
attempts          hash    runs of a job so far; gone with its end, but not for dead letters
forgiven          hash    those of them that don't count against ``MAX_ATTEMPTS``
given-back        hash    outages that a job was given back for, and ``completed`` and ``recovered`` at that time
dead              list    dead letters, the latest first
cancelled         set     running jobs that shall stop
workers           zset    workers by the moment at which their registration ends
processing        set     processing lists that may hold something
orphans           hash    since when a sweep sees entries of processing lists without a lease, and deadlines in doubt
swept             string  moment of the last sweep
completed         string  jobs completed or failed so far
totals            hash    for metrics, how many so far: see below
recovered         string  how often a worker found that answers again what was away
rates             hash    jobs completed or failed in each minute (``2026-11-24T09:30``) of the last hour
leftovers         zset    runs (``<attempt> <job>``) whose objects may be removed, and from when on
registrations     hash    token of the process that is registered under a worker's name, and ms of its leases
waiting           zset    parent jobs that wait for their children by the moment of the last look at them
================  ======  ===============================================================================

Of the jobs in ``completed`` those in ``totals`` under ``failed`` and ``dead`` weren't ``done``. Besides them it has
``exhausted`` (dead letters that no attempt was left for), ``cancelled`` (as they waited), and claims that ended
otherwise: ``returned`` (given back), ``divided`` (into children), ``lapsed`` (swept, their lease ran out); and
``stranded`` (swept without ever having had one). So nothing has to be counted for a job that is simply done.

A parent's own keys are told in ``lua/family.lua``.
"""

from __future__ import annotations

from functools import cache


def own_key(kind: str, queue: str) -> str:
    """Name of one of our own keys for a queue, see the table above."""
    return f"redis-consumer:{kind}:{queue}"


@cache
def own_keys(queue: str, *kinds: str) -> tuple[str, ...]:
    """Names of several, made once: each job needs some twenty."""
    return tuple(own_key(kind, queue) for kind in kinds)
