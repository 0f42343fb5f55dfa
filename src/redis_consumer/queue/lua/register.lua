-- Register a worker: from absent to registered.
--
-- KEYS  1 workers   2 processing lists   3 processing list   4 registrations   5 orphans
-- ARGV  1 name of the worker   2 registration in ms   3 token of this process
-- Returns 0, or the ms after which to try again, because another worker with this name is still registered.
-- Atomic because two workers that check and then register would both use one name.

expect("zset", KEYS[1])
expect("set", KEYS[2])
expect("list", KEYS[3])
expect("hash", KEYS[4], KEYS[5])
local now = now_ms()
local deadline = redis.call("ZSCORE", KEYS[1], ARGV[1]) or "0"
local until_ms = tonumber(deadline)
local registration = redis.call("HGET", KEYS[4], ARGV[1])
-- The token identifies the worker's own registration, if its reply was lost.
if until_ms > now and string.match(registration or "", "^%S*") ~= ARGV[3] then
  local length = length_of(registration, ARGV[2])
  if until_ms <= now + length then
    return until_ms - now
  end
  -- The clock was set back: it counts only if it is renewed.
  local mark, is_void = doubted(KEYS[5], ARGV[1], deadline, now, length)
  if not is_void then
    redis.call("HSET", KEYS[5], ARGV[1], mark)
    return math.ceil(0.4 * length)
  end
end
redis.call("ZADD", KEYS[1], now + ARGV[2], ARGV[1])
redis.call("HSET", KEYS[4], ARGV[1], ARGV[3] .. " " .. ARGV[2])
redis.call("HDEL", KEYS[5], ARGV[1])
redis.call("SADD", KEYS[2], KEYS[3])
return 0
