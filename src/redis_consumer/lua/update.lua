-- Write progress of a running job: claimed stays claimed.
--
-- KEYS  1 processing list   2 hash of the job
-- ARGV  1 key of the job   2… field, value, …
-- Returns 1, or 0 where the job isn't ours any more (not in the list) or its hash is gone: nothing is written.
-- Atomic because a job that is taken from us between check and write would show a stranger's progress.

if not redis.call("LPOS", KEYS[1], ARGV[1]) or redis.call("EXISTS", KEYS[2]) == 0 then
  return 0
end
redis.call("HSET", KEYS[2], unpack(ARGV, 2))
return 1
