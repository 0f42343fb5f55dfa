-- Return a dead letter to its queue: from failed to waiting, with a new set of attempts.
--
-- KEYS  1 dead letters   2 queue   3 hash of the job   4 attempts   5 given back   6 forgiven
-- ARGV  1 now (ISO 8601)   2 who asked
-- Returns 1, or 0 if the job isn't a dead letter or its hash is gone: then it is only removed from the list.
-- Atomic because a job that is on the list and in the queue would be retried twice.

expect("list", KEYS[1], KEYS[2])
expect("hash", KEYS[4], KEYS[5], KEYS[6])
local job = KEYS[3]
if not redis.call("LPOS", KEYS[1], job) then
  return 0
end
if kind_of(job) ~= "hash" then
  redis.call("LREM", KEYS[1], -1, job)
  return 0
end
local kin = families()
kin.prepare(job)
local parent = redis.call("HGET", job, "parent")
if parent then
  kin.prepare(parent)
end
redis.call("HSET", KEYS[6], job, number_of(redis.call("HGET", KEYS[4], job)))
redis.call("HDEL", KEYS[5], job)
redis.call("HDEL", job, "reason", "timed_out")
if not parent then
  redis.call("PERSIST", job)
end
if parent then
  local state, cancelled = text_in(family_of .. parent, "state"), text_in(family_of .. parent, "cancelled")
  if state == "waiting" and not cancelled then
    -- Its parent still waits for other children: this child counts as open again.
    redis.call("SADD", open_of .. parent, job)
    add_to(family_of .. parent, "failed", -1)
    kin.add_progress(parent, kin.percent_of(text_in(job, "progress")) - 100)
  else
    redis.call("HDEL", job, "parent")
  end
end
if redis.call("EXISTS", family_of .. job) == 1 then
  -- It continues where it failed, with the results of its children.
  for _, kind in ipairs({family_of, children_of, open_of}) do
    redis.call("PERSIST", kind .. job)
  end
else
  redis.call("HDEL", job, "next_phase")
end
redis.call("HSET", job, "status", "new", "updated_at", ARGV[1], "updated_by", ARGV[2])
redis.call("LPUSH", KEYS[2], job)
redis.call("LREM", KEYS[1], -1, job)
return 1
