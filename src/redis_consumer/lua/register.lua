-- Say that a worker lives: from absent to registered.
--
-- KEYS  1 workers   2 processing lists   3 processing list   4 registrations
-- ARGV  1 name of the worker   2 registration in ms   3 token of this process
-- Returns 0, or the ms for which another worker of this name is registered still: nothing is written.
-- Atomic because two workers that look and then register would both go on under one name.

expect("zset", KEYS[1])
expect("set", KEYS[2])
expect("list", KEYS[3])
expect("hash", KEYS[4])
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = tonumber(redis.call("ZSCORE", KEYS[1], ARGV[1]) or 0)
-- By its token a worker knows its own registration, whose reply was lost.
if until_ms > now and redis.call("HGET", KEYS[4], ARGV[1]) ~= ARGV[3] then
  return until_ms - now
end
redis.call("ZADD", KEYS[1], now + ARGV[2], ARGV[1])
redis.call("HSET", KEYS[4], ARGV[1], ARGV[3])
redis.call("SADD", KEYS[2], KEYS[3])
return 0
