-- Write progress of a running job: claimed stays claimed.
--
-- KEYS  1 processing list   2 holders   3 cancelled   4 hash of the job   5 leases   6 attempts   7 given back
--       8 queue   9 forgiven
-- ARGV  1 holder ("<attempt> <processing list>")   2… field, value, …
-- Returns 1; 0 if this worker no longer holds the job, or its hash is gone, which ends the claim; 2 if the job or its
--   parent was cancelled: nothing is written.
-- Atomic because a job that another worker takes between check and write would show the progress of the wrong run.

expect("list", KEYS[1], KEYS[8])
expect("hash", KEYS[2], KEYS[6], KEYS[7], KEYS[9])
expect("set", KEYS[3])
expect("zset", KEYS[5])
local job = KEYS[4]
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] then
  return 0
end
local kin = text_in(job, "parent") and families()
if kin then
  kin.prepare(job)
end
if not redis.call("LPOS", KEYS[1], job) then
  -- A janitor has put it back. This worker still holds it until another one takes it.
  if redis.call("LREM", KEYS[8], 1, job) == 0 then
    return 0
  end
  redis.call("LPUSH", KEYS[1], job)
end
if kind_of(job) ~= "hash" then
  -- If it stayed in the list, the autoscaler would count a busy worker for ever.
  redis.call("LREM", KEYS[1], 1, job)
  redis.call("ZREM", KEYS[5], job)
  redis.call("SREM", KEYS[3], job)
  for _, key in ipairs({KEYS[2], KEYS[6], KEYS[7], KEYS[9]}) do
    redis.call("HDEL", key, job)
  end
  return 0
end
if redis.call("SISMEMBER", KEYS[3], job) == 1 or (kin and kin.is_unwanted(job)) then
  return 2
end
for index = 2, kin and #ARGV or 0, 2 do
  if ARGV[index] == "progress" then
    kin.tell_progress(job, ARGV[index + 1])
  end
end
write("HSET", job, ARGV, 2)
return 1
