-- Return a job to its queue: from claimed to waiting.
--
-- KEYS  1 processing list   2 holders   3 hash of the job   4 leases   5 attempts   6 given back   7 completed   8 queue
--       9 recovered   10 forgiven   11 totals
-- ARGV  1 holder ("<attempt> <processing list>")
--       2 "next" (taken again at once), "crashed" (likewise, but the attempt counts) or "last" (end of the line,
--       after an outage)
--       3 how often an outage may be blamed while other jobs succeed   4 what went wrong, "" for nothing
-- Returns 1, or 0 where the job isn't ours any more: nothing is pushed.
-- Atomic because a worker that dies between the two steps would lose the job or leave it twice.

local job = KEYS[3]
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] then
  return 0
end
redis.call("HDEL", KEYS[2], job)
redis.call("ZREM", KEYS[4], job)
if redis.call("LREM", KEYS[1], 1, job) == 0 then
  return 0
end
local is_counted = ARGV[2] == "crashed"
if ARGV[2] == "last" then
  -- A job whose outages fall between successes of others may be their cause: its attempts count from then on.
  -- Once two did, it is enough that what was away came back in between: the others may all be done by then.
  local completed = redis.call("GET", KEYS[7]) or "0"
  local recovered = redis.call("GET", KEYS[9]) or "0"
  local before = redis.call("HGET", KEYS[6], job) or "0 -1 -1"
  local count, at_completed, at_recovered = string.match(before, "^(%d+) (-?%d+) (-?%d+)$")
  if at_completed ~= completed or (tonumber(count) > 1 and at_recovered ~= recovered) then
    count = count + 1
  end
  redis.call("HSET", KEYS[6], job, string.format("%d %s %s", count, completed, recovered))
  is_counted = tonumber(count) > tonumber(ARGV[3])
end
if not is_counted then
  redis.call("HINCRBY", KEYS[10], job, 1)
end
if ARGV[4] ~= "" and redis.call("EXISTS", job) == 1 then
  redis.call("HSET", job, "last_error", ARGV[4])
end
redis.call("HINCRBY", KEYS[11], "returned", 1)
redis.call(ARGV[2] == "last" and "LPUSH" or "RPUSH", KEYS[8], job)
return 1
