"""Makes the names of the package's own keys in Redis.

All of them begin with ``redis-consumer:`` and end with the name of their queue:

================  ======  ===============================================================================
leases            zset    running jobs by the time (ms, the server's clock) at which their lease ends
holders           hash    running jobs: ``<attempt> <processing list>``, the fencing token
attempts          hash    runs of a job so far; removed at its end, but kept for dead letters
forgiven          hash    runs of a job that don't count against ``MAX_ATTEMPTS``
given-back        hash    outages for which a job was given back, with ``completed`` and ``recovered`` at that time
dead              list    dead letters, the latest first
cancelled         set     running jobs that must stop
workers           zset    workers by the time at which their registration ends
processing        set     processing lists that may contain a job
orphans           hash    when a sweep first saw an entry without a lease, or a deadline in doubt
swept             string  time of the last sweep
completed         string  jobs completed or failed so far
totals            hash    counts for metrics, see below
recovered         string  how often a worker found that an unavailable service responds again
rates             hash    jobs completed or failed in each minute (``2026-11-24T09:30``) of the last hour
leftovers         zset    orphaned results (``<attempt> <job>``) by the time from which they can be removed
registrations     hash    token of the process that is registered under a worker's name, and its lease in ms
waiting           zset    parent jobs that wait for their children, by the time of their last check
================  ======  ===============================================================================

``totals`` counts the jobs in ``completed`` that weren't ``done`` under ``failed`` and ``dead``. It also has
``exhausted`` (dead letters without an attempt left) and ``cancelled`` (while they waited). Claims that ended in
another way are ``returned`` (given back), ``divided`` (into children), ``lapsed`` (swept after their lease ran out)
and ``stranded`` (swept, without ever having had a lease). So a job that is ``done`` needs no count here.

``lua/job_tree.lua`` describes the keys of a parent.
"""

from __future__ import annotations


def own_key(kind: str, queue: str) -> str:
    """Return the name of a key for a queue, see the table above."""
    return f"redis-consumer:{kind}:{queue}"
