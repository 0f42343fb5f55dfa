-- Remove the hash of an ended job and all data about it: from done or failed to gone.
--
-- Arguments  job: its key · updated_at: the field of this name, as the caller read it
-- Returns    "ok"; "changed" if the job has changed since then: nothing is removed.
-- Atomic     because a job that is retried between check and removal would be lost.

local job, updated_at = unpack(ARGV)

expect_queue()
expect("list", own("dead"))
local status = text_in(job, "status")
local is_over = (status == "done" or status == "failed") and redis.call("HEXISTS", holders, job) == 0
if not is_over or (text_in(job, "updated_at") or "") ~= updated_at then
  return "changed"
end
redis.call("UNLINK", job)
redis.call("LREM", own("dead"), 0, job)
forget_runs(job)
return "ok"
