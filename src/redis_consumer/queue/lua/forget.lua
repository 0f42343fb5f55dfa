-- Remove the hash of an ended job and all data about it: from done or failed to gone.
--
-- KEYS  1 hash of the job   2 dead letters   3 attempts   4 given back   5 forgiven   6 holders
-- ARGV  1 its updated_at, as the caller read it
-- Returns 1, or 0 if the job has changed since then: nothing is removed.
-- Atomic because a job that is retried between check and removal would be lost.

expect("list", KEYS[2])
expect("hash", KEYS[3], KEYS[4], KEYS[5], KEYS[6])
local job = KEYS[1]
local status = text_in(job, "status")
local is_over = (status == "done" or status == "failed") and redis.call("HEXISTS", KEYS[6], job) == 0
if not is_over or (text_in(job, "updated_at") or "") ~= ARGV[1] then
  return 0
end
redis.call("UNLINK", job)
redis.call("LREM", KEYS[2], 0, job)
for index = 3, 5 do
  redis.call("HDEL", KEYS[index], job)
end
return 1
