-- Extend the leases of running jobs and the registration of their worker: claimed stays claimed.
--
-- KEYS  1 leases   2 holders   3 workers   4 processing lists   5 processing list   6 registrations
--       7… hashes of the jobs
-- ARGV  1 name of the worker   2 lease in ms   3 now (ISO 8601)   4 token of this process   5, 6 not used
--       7… holder of each job
-- Returns the keys of the jobs that this worker no longer holds.
-- Atomic because two runs would continue if a lease were extended after another worker took the job.

expect("zset", KEYS[1], KEYS[3])
expect("hash", KEYS[2], KEYS[6])
expect("set", KEYS[4])
local deadline = now_ms() + ARGV[2]
begin_though_full()
redis.call("ZADD", KEYS[3], deadline, ARGV[1])
redis.call("SADD", KEYS[4], KEYS[5])
-- Missing if Redis restarted without its data. The registration of a successor with this name is kept.
redis.call("HSETNX", KEYS[6], ARGV[1], ARGV[4] .. " " .. ARGV[2])
local lost = {}
for index = 7, #KEYS do
  local job = KEYS[index]
  if redis.call("HGET", KEYS[2], job) == ARGV[index] and kind_of(job) == "hash" then
    redis.call("ZADD", KEYS[1], deadline, job)
    -- The janitor checks this field of running jobs.
    redis.call("HSET", job, "updated_at", ARGV[3])
  else
    lost[#lost + 1] = job
  end
end
return lost
