"""The fastest that one Python process can be: a bare loop of two scripts, with redis-py and hiredis.

``python -m benchmarks.queue_floor QUEUE LIST`` works on the jobs of a queue until it is ended. The scripts do what a
lease and a fence need and no more: the claim moves a key, counts the attempt, notes the lease and reads the job; the
completion checks the attempt, writes the status and ends the claim. Nothing is logged,
checked, retried or reported to a supervisor.
"""

from __future__ import annotations

import os
import sys

import redis

CLAIM = """
local job = redis.call("LMOVE", KEYS[1], KEYS[2], "RIGHT", "LEFT")
if not job then
  return false
end
local attempt = redis.call("HINCRBY", KEYS[4], job, 1)
redis.call("ZADD", KEYS[3], ARGV[1], job)
return {job, attempt, redis.call("HGETALL", job)}
"""

COMPLETE = """
if redis.call("HGET", KEYS[3], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call("LREM", KEYS[1], 1, ARGV[1])
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("HDEL", KEYS[3], ARGV[1])
redis.call("HSET", ARGV[1], "status", "done")
return 1
"""


def run(client: redis.Redis, queue: str, processing: str) -> None:
    """Claim and complete jobs until the queue is empty."""
    claim, complete = client.script_load(CLAIM), client.script_load(COMPLETE)
    leases, attempts = "leases", "attempts"
    while claimed := client.evalsha(claim, 4, queue, processing, leases, attempts, 10_000):
        job, attempt, _fields = claimed
        client.evalsha(complete, 3, processing, leases, attempts, job, attempt)


if __name__ == "__main__":
    run(redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True), *sys.argv[1:])
