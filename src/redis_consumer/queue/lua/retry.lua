-- Return a dead letter to its queue: from failed to waiting, with a new set of attempts.
--
-- Arguments  job: its key · at: now (ISO 8601) · by: who asked
-- Returns    "ok"; "none" if the job isn't a dead letter or its hash is gone: then it is only removed from the list.
-- Atomic     because a job that is on the list and in the queue would be retried twice.

local job, at, by = unpack(ARGV)
local dead = own("dead")

expect_queue()
expect("list", dead)
if not redis.call("LPOS", dead, job) then
  return "none"
end
if kind_of(job) ~= "hash" then
  redis.call("LREM", dead, -1, job)
  return "none"
end
local tree = job_tree()
tree.prepare(job)
local parent = redis.call("HGET", job, "parent")
if parent then
  tree.prepare(parent)
end
redis.call("HSET", forgiven, job, number_of(redis.call("HGET", attempts, job)))
redis.call("HDEL", given_back, job)
redis.call("HDEL", job, "reason", "timed_out")
if not parent then
  redis.call("PERSIST", job)
end
if parent then
  local state, is_cancelled = text_in(own("family", parent), "state"), text_in(own("family", parent), "cancelled")
  if state == "waiting" and not is_cancelled then
    -- Its parent still waits for other children: this child counts as open again.
    redis.call("SADD", own("open", parent), job)
    add_to(own("family", parent), "failed", -1)
    tree.add_progress(parent, tree.percent_of(text_in(job, "progress")) - 100)
  else
    redis.call("HDEL", job, "parent")
  end
end
if redis.call("EXISTS", own("family", job)) == 1 then
  -- It continues where it failed, with the results of its children.
  for _, kind in ipairs({"family", "children", "open"}) do
    redis.call("PERSIST", own(kind, job))
  end
else
  redis.call("HDEL", job, "next_phase")
end
redis.call("HSET", job, "status", "new", "updated_at", at, "updated_by", by)
redis.call("LPUSH", queue, job)
redis.call("LREM", dead, -1, job)
return "ok"
