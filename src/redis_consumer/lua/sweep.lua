-- Return jobs that nobody holds any more to their queue: from claimed to waiting.
--
-- KEYS  1 queue   2 leases   3 holders   4 processing lists   5 orphans   6 lock   7 workers
--       8 registrations   9 rates
-- ARGV  1 ms for which no other sweep may run   2 ms after which an entry without a lease counts as stranded
--       3 jobs at most   4 prefix of processing lists, up to the worker's name
--       5 first minute (ISO 8601) whose number of completed jobs is kept
-- Returns {jobs returned}, or {-1} where another sweep ran just now.
-- Atomic because a lease that is renewed between look and move would leave a job running and waiting at once.

redis.replicate_commands()
if not redis.call("SET", KEYS[6], "1", "NX", "PX", ARGV[1]) then
  return {-1}
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local returned = {}

local function give_back(list, job)
  if redis.call("LREM", list, 1, job) > 0 then
    redis.call("RPUSH", KEYS[1], job)
    returned[#returned + 1] = job
  end
end

for _, job in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now, "LIMIT", 0, ARGV[3])) do
  local holder = redis.call("HGET", KEYS[3], job)
  redis.call("ZREM", KEYS[2], job)
  redis.call("HDEL", KEYS[3], job)
  if holder then
    give_back(string.match(holder, "^%d+ (.+)$"), job)
  end
end

-- A worker that died between move and lease, or that knows no leases, leaves an entry without one.
local seen = {}
for _, list in ipairs(redis.call("SMEMBERS", KEYS[4])) do
  local entries = redis.call("LRANGE", list, 0, ARGV[3])
  for _, job in ipairs(entries) do
    if redis.call("HEXISTS", KEYS[3], job) == 0 then
      local name = list .. " " .. job
      local since = redis.call("HGET", KEYS[5], name)
      if since and now - since >= tonumber(ARGV[2]) then
        give_back(list, job)
      else
        seen[#seen + 1] = name
        seen[#seen + 1] = since or now
      end
    end
  end
  local worker = string.sub(list, #ARGV[4] + 1)
  if #entries == 0 and tonumber(redis.call("ZSCORE", KEYS[7], worker) or 0) < now then
    redis.call("SREM", KEYS[4], list)
    redis.call("ZREM", KEYS[7], worker)
    redis.call("HDEL", KEYS[8], worker)
  end
end
redis.call("DEL", KEYS[5])
if #seen > 0 then
  redis.call("HSET", KEYS[5], unpack(seen))
end
for _, minute in ipairs(redis.call("HKEYS", KEYS[9])) do
  if minute < ARGV[5] then
    redis.call("HDEL", KEYS[9], minute)
  end
end
return returned
