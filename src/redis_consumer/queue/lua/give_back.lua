-- Return a job to its queue: from claimed to waiting.
--
-- KEYS  1 processing list   2 holders   3 hash of the job   4 leases   5 attempts   6 given back   7 completed   8 queue
--       9 recovered   10 forgiven   11 totals   12 workers
-- ARGV  1 holder ("<attempt> <processing list>")
--       2 "next" (to the front), "crashed" (to the front, and the attempt counts) or "last" (to the back, after an
--       outage)
--       3 outages that aren't counted while other jobs succeed   4 the error, "" for none
--       5 name of the worker if the job exceeded its time, else ""
-- Returns 1; 0 if this worker no longer holds the job: nothing is pushed; 2 if it exceeded its time too often: this
--   worker still holds it, and settles it as failed.
-- Atomic because a worker that dies between the two steps would lose the job or leave it twice.

expect("list", KEYS[1], KEYS[8])
expect("hash", KEYS[2], KEYS[6], KEYS[10], KEYS[11])
expect("zset", KEYS[4], KEYS[12])
expect("string", KEYS[7], KEYS[9])
local job = KEYS[3]
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] then
  return 0
end
begin_though_full()
local function end_claim()
  redis.call("ZREM", KEYS[4], job)
  redis.call("HDEL", KEYS[2], job)
end
if not redis.call("LPOS", KEYS[1], job) then
  end_claim()
  return 0
end
-- The job fails the second time, unless this worker may be the cause and another one can run it.
if ARGV[5] ~= "" and kind_of(job) == "hash" then
  local count, worker = string.match(text_in(job, "timed_out") or "", "^(%d+) (.+)$")
  count = number_of(count) + 1
  local others = redis.call("ZCOUNT", KEYS[12], now_ms(), "+inf")
  if redis.call("ZSCORE", KEYS[12], ARGV[5]) then
    others = others - 1
  end
  if count > 2 or (count == 2 and (worker ~= ARGV[5] or others <= 0)) then
    return 2
  end
  redis.call("HSET", job, "timed_out", count .. " " .. ARGV[5])
end
local is_counted = ARGV[2] == "crashed"
if ARGV[2] == "last" then
  -- If other jobs succeed between the outages of a job, it may be their cause. Later attempts count. After two
  -- such outages, it is enough that the service responded in between, because all other jobs may be done by then.
  local completed = number_of(redis.call("GET", KEYS[7]))
  local recovered = number_of(redis.call("GET", KEYS[9]))
  local before = redis.call("HGET", KEYS[6], job) or ""
  local count, at_completed, at_recovered = string.match(before, "^(%d+) (-?%d+) (-?%d+)$")
  count = number_of(count)
  if number_of(at_completed or "-1") ~= completed or (count > 1 and number_of(at_recovered) ~= recovered) then
    count = count + 1
  end
  redis.call("HSET", KEYS[6], job, string.format("%d %d %d", count, completed, recovered))
  is_counted = count > tonumber(ARGV[3])
end
if not is_counted then
  add_to(KEYS[10], job, 1)
end
if ARGV[4] ~= "" and kind_of(job) == "hash" then
  redis.call("HSET", job, "last_error", ARGV[4])
end
add_to(KEYS[11], "returned", 1)
redis.call(ARGV[2] == "last" and "LPUSH" or "RPUSH", KEYS[8], job)
redis.call("LREM", KEYS[1], 1, job)
end_claim()
return 1
