-- Cancel a job: from waiting to failed. A running job stops at its next step. If the job waits for children, they are
-- cancelled too: each child notices it at its claim or at its next step.
--
-- KEYS  1 queue   2 holders   3 cancelled   4 hash of the job   5 attempts   6 given back   7 forgiven
-- ARGV  1 now (ISO 8601)   2 who asked   3 reason   4 seconds after which hashes of its children expire
--       5 seconds after which its own hash expires; 0 for never
-- Returns "cancelled", "stopping" (it runs), "final" (it has its result already) or "gone".
-- Atomic because a job that is claimed between check and removal would continue to run.

expect("list", KEYS[1])
expect("set", KEYS[3])
expect("hash", KEYS[2], KEYS[5], KEYS[6], KEYS[7], totals_of .. KEYS[1])
local job = KEYS[4]
if kind_of(job) ~= "hash" then
  redis.call("LREM", KEYS[1], 0, job)
  return "gone"
end
local status = redis.call("HGET", job, "status")
if status == "done" or status == "failed" then
  return "final"
end
if redis.call("HEXISTS", KEYS[2], job) == 1 then
  redis.call("SADD", KEYS[3], job)
  return "stopping"
end
local kin = families()
kin.prepare(job)
begin_though_full()
kin.tell_end(job, false)
kin.forget_staged(job)
local state, queue = unpack(redis.call("HMGET", family_of .. job, "state", "queue"))
if state == "waiting" then
  kin.disown_children(job, queue)
else
  kin.forget_family(job, ARGV[4])
end
add_to(totals_of .. KEYS[1], "cancelled", 1)
redis.call("HSET", job, "status", "failed", "reason", ARGV[3], "updated_at", ARGV[1], "updated_by", ARGV[2])
let_expire(job, ARGV[5])
for index = 5, 7 do
  redis.call("HDEL", KEYS[index], job)
end
redis.call("SREM", KEYS[3], job)
redis.call("LREM", KEYS[1], 0, job)
return "cancelled"
