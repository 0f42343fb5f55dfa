-- Cancel a job: from waiting to failed. A running job stops at its next step. If the job waits for children, they are
-- cancelled too: each child notices it at its claim or at its next step.
--
-- Arguments  job: its key · at: now (ISO 8601) · by: who asked · reason
--            child_expire_s: seconds after which hashes of its children expire
--            result_ttl_s: seconds after which its own hash expires; 0 for never
-- Returns    "cancelled", "stopping" (it runs), "final" (it has its result already) or "gone".
-- Atomic     because a job that is claimed between check and removal would continue to run.

local job, at, by, reason, child_expire_s, result_ttl_s = unpack(ARGV)

expect_queue()
if kind_of(job) ~= "hash" then
  redis.call("LREM", queue, 0, job)
  return "gone"
end
local status = redis.call("HGET", job, "status")
if status == "done" or status == "failed" then
  return "final"
end
if redis.call("HEXISTS", holders, job) == 1 then
  redis.call("SADD", cancelled, job)
  return "stopping"
end
local tree = job_tree()
tree.prepare(job)
begin_though_full()
tree.tell_end(job, false)
tree.forget_unpushed(job)
local state, its_queue = unpack(redis.call("HMGET", own("family", job), "state", "queue"))
if state == "waiting" then
  tree.disown_children(job, its_queue)
else
  tree.forget_children(job, child_expire_s)
end
add_to(totals, "cancelled", 1)
redis.call("HSET", job, "status", "failed", "reason", reason, "updated_at", at, "updated_by", by)
let_expire(job, result_ttl_s)
forget_runs(job)
redis.call("SREM", cancelled, job)
redis.call("LREM", queue, 0, job)
return "cancelled"
