-- Register a worker: from absent to registered.
--
-- Arguments  worker: its name · lease_ms: how long the registration lasts · token: of this process
-- Returns    0, or the ms after which to try again, because another worker with this name is still registered.
-- Atomic     because two workers that check and then register would both use one name.

local worker, lease_ms, token = unpack(ARGV)
local workers, registrations, doubts = own("workers"), own("registrations"), own("orphans")

expect("zset", workers)
expect("set", own("processing"), "redis-consumer:queues")
expect("list", processing_of(worker))
expect("hash", registrations, doubts)
local now = now_ms()
local deadline = redis.call("ZSCORE", workers, worker) or "0"
local until_ms = tonumber(deadline)
local registration = redis.call("HGET", registrations, worker)
-- The token identifies the worker's own registration, if its reply was lost.
if until_ms > now and string.match(registration or "", "^%S*") ~= token then
  local length = length_of(registration, lease_ms)
  if until_ms <= now + length then
    return until_ms - now
  end
  -- The clock was set back: it counts only if it is renewed.
  local mark, is_void = doubted(doubts, worker, deadline, now, length)
  if not is_void then
    redis.call("HSET", doubts, worker, mark)
    return math.ceil(0.4 * length)
  end
end
redis.call("ZADD", workers, now + lease_ms, worker)
redis.call("SADD", "redis-consumer:queues", queue)
redis.call("HSET", registrations, worker, token .. " " .. lease_ms)
redis.call("HDEL", doubts, worker)
redis.call("SADD", own("processing"), processing_of(worker))
return 0
