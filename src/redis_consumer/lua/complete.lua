-- Settle a job with its result or its reason: from claimed to done or failed.
--
-- KEYS  1 processing list   2 holders   3 cancelled   4 hash of the job   5 leases   6 attempts   7 given back
--       8 dead letters   9 completed
-- ARGV  1 holder ("<attempt> <processing list>")   2 "dead" to list it among the dead letters, else ""
--       3 now (ISO 8601, the value of updated_at below)   4… field, value, …
-- Returns 1, also when this very call has been carried out before and its reply was lost; 0 where the job isn't
--   ours any more or its hash is gone: no field is written.
-- Atomic because the result must become visible together with the end of the claim: one without the other would
-- run the job again, or lose it.

local job = KEYS[4]
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] then
  return redis.call("HGET", job, "updated_at") == ARGV[3] and 1 or 0
end
redis.call("HDEL", KEYS[2], job)
redis.call("SREM", KEYS[3], job)
redis.call("ZREM", KEYS[5], job)
-- A stranger that took the key out of our list runs it, or has put it back into the queue: only its run counts.
if redis.call("LREM", KEYS[1], 1, job) == 0 then
  return 0
end
redis.call("HDEL", KEYS[6], job)
redis.call("HDEL", KEYS[7], job)
if redis.call("EXISTS", job) == 0 then
  return 0
end
redis.call("HSET", job, unpack(ARGV, 4))
redis.call("INCR", KEYS[9])
if ARGV[2] == "dead" then
  redis.call("LPUSH", KEYS[8], job)
end
return 1
