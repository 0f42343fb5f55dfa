-- Write the hashes of some children of a running job, which aren't in their queues yet: claimed stays claimed.
--
-- Arguments  job: the parent's key · attempt, worker: who runs it · before: number of children that are already written
--            life_s: seconds after which a child's hash expires at the latest
--            then for each child: its key, the number of texts that follow, field, value, …
-- Returns    "ok", also if the same call was already carried out; "lost" if this worker no longer holds the job;
--            "cancelled"; "missing children" if children that were written before are missing, as after a failover.
-- Atomic     because a run that has lost the job would overwrite the children of the current run.

local job, attempt, worker, before, life_s = unpack(ARGV, 1, 5)
local unpushed = own("staged", job)

expect("hash", holders)
expect("set", cancelled)
local tree = job_tree()
if redis.call("HGET", holders, job) ~= holder_of(attempt, worker) or kind_of(job) ~= "hash" then
  return "lost"
end
tree.prepare(job)
if redis.call("SISMEMBER", cancelled, job) == 1 or tree.is_unwanted(job) then
  return "cancelled"
end
before = tonumber(before)
if before == 0 then
  tree.forget_unpushed(job)
end
local written = redis.call("LLEN", unpushed)
if written ~= before then
  return written > before and "ok" or "missing children"
end
local index = 6
while index < #ARGV do
  local child, count = ARGV[index], tonumber(ARGV[index + 1])
  redis.call("DEL", child)
  redis.call("HSET", child, "parent", job)
  write("HSET", child, ARGV, index + 2, index + 1 + count)
  redis.call("EXPIRE", child, life_s)
  redis.call("RPUSH", unpushed, child)
  index = index + 2 + count
end
redis.call("EXPIRE", unpushed, kept_s)
return "ok"
