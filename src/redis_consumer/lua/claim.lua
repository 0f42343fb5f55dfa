-- Open the job that a move has just put into a processing list: from taken to claimed.
--
-- KEYS  1 processing list   2 hash of the job
-- ARGV  1 key of the job   2 now (ISO 8601)   3 name of the worker
-- Returns {"claimed", field, value, …}; or, with the key dropped from the list, {"gone"} (no such key),
--   {"no hash", type} or {"final", status} (a duplicate of a job that has its result).
-- Atomic because a job that is re-pushed, cancelled or expires between look and write would come back to life as
-- a hash with two fields.

local kind = redis.call("TYPE", KEYS[2]).ok
if kind == "none" then
  redis.call("LREM", KEYS[1], 1, ARGV[1])
  return {"gone"}
end
if kind ~= "hash" then
  redis.call("LREM", KEYS[1], 1, ARGV[1])
  return {"no hash", kind}
end
local status = redis.call("HGET", KEYS[2], "status")
if status == "done" or status == "failed" then
  redis.call("LREM", KEYS[1], 1, ARGV[1])
  return {"final", status}
end
redis.call("HSET", KEYS[2], "updated_at", ARGV[2], "updated_by", ARGV[3])
local reply = redis.call("HGETALL", KEYS[2])
table.insert(reply, 1, "claimed")
return reply
