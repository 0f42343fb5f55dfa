-- Return a job to its queue: from claimed to waiting.
--
-- KEYS  1 processing list   2 holders   3 hash of the job   4 leases   5 attempts   6 given back   7 completed   8 queue
--       9 recovered   10 forgiven   11 totals   12 workers
-- ARGV  1 holder ("<attempt> <processing list>")
--       2 "next" (taken again at once), "crashed" (likewise, but the attempt counts) or "last" (end of the line,
--       after an outage)
--       3 how often an outage may be blamed while other jobs succeed   4 what went wrong, "" for nothing
--       5 name of the worker where the job ran out of time, else ""
-- Returns 1; 0 where the job isn't ours any more: nothing is pushed; 2 where it has run out of time often enough: it is
--   still ours, to be settled as failed.
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
-- The second time is one too many, unless the cause may be this very worker and another one can try.
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
  -- A job whose outages fall between successes of others may be their cause: its attempts count from then on.
  -- Once two did, it is enough that what was away came back in between: the others may all be done by then.
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
