-- Give runs whose objects can be removed, because their jobs ended with another run or are gone.
--
-- Arguments  most: runs at most · again_ms: ms after which a run that isn't removed is given again
-- Returns    {attempt, key of the job, its output_file_name or "", its provenance_file_name or "", …}.
-- Atomic     because two workers at the same time would do the same work. If a worker dies, no run is lost.

local most, again_ms = unpack(ARGV)
local orphaned_results = own("leftovers")

expect("zset", orphaned_results)
local now = now_ms()
local reply = {}
for _, run in ipairs(redis.call("ZRANGEBYSCORE", orphaned_results, "-inf", now, "LIMIT", 0, most)) do
  local attempt, job = string.match(run, "^(%d+) (.+)$")
  local status, visible, record, is_over = false, false, false, job
  if job then
    redis.call("ZADD", orphaned_results, now + again_ms, run)
  else
    redis.call("ZREM", orphaned_results, run)
  end
  if job and kind_of(job) == "hash" then
    status, visible, record = unpack(redis.call("HMGET", job, "status", "output_file_name", "provenance_file_name"))
    is_over = status == "done" or status == "failed"
  end
  if is_over then
    reply[#reply + 1] = attempt
    reply[#reply + 1] = job
    reply[#reply + 1] = visible or ""
    reply[#reply + 1] = record or ""
  end
end
return reply
