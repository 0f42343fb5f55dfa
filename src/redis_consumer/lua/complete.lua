-- Settle a job with its result or its reason: from claimed to done or failed.
--
-- KEYS  1 processing list   2 hash of the job
-- ARGV  1 key of the job   2 now (ISO 8601, the value of updated_at below)   3… field, value, …
-- Returns 1, also when this very call has been carried out before and its reply was lost; 0 where the job isn't
--   ours any more or its hash is gone: no field is written.
-- Atomic because the result must become visible together with the end of the claim: one without the other would
-- run the job again, or lose it.

local removed = redis.call("LREM", KEYS[1], 1, ARGV[1])
if redis.call("EXISTS", KEYS[2]) == 0 then
  return 0
end
if removed == 0 then
  return redis.call("HGET", KEYS[2], "updated_at") == ARGV[2] and 1 or 0
end
redis.call("HSET", KEYS[2], unpack(ARGV, 3))
return 1
