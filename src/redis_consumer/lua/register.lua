-- Say that a worker lives: from absent to registered.
--
-- KEYS  1 workers   2 processing lists   3 processing list
-- ARGV  1 name of the worker   2 registration in ms
-- Returns 0, or the ms for which another worker of this name is registered still: nothing is written.
-- Atomic because two workers that look and then register would both go on under one name.

redis.replicate_commands()
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = tonumber(redis.call("ZSCORE", KEYS[1], ARGV[1]) or 0)
if until_ms > now then
  return until_ms - now
end
redis.call("ZADD", KEYS[1], now + ARGV[2], ARGV[1])
redis.call("SADD", KEYS[2], KEYS[3])
return 0
