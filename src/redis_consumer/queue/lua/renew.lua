-- Extend the leases of running jobs and the registration of their worker: claimed stays claimed.
--
-- Arguments  worker: its name · lease_ms: how long leases last · at: now (ISO 8601) · token: of this process
--            activity: what the worker does, as JSON; empty to leave that unchanged
--            then job, attempt, …
-- Returns    the keys of the jobs that this worker no longer holds.
-- Atomic     because two runs would continue if a lease were extended after another worker took the job.

local worker, lease_ms, at, token, activity = unpack(ARGV, 1, 5)
local workers, registrations = own("workers"), own("registrations")

expect("zset", leases, workers)
expect("hash", holders, registrations, own("activities"))
expect("set", own("processing"), "redis-consumer:queues")
local deadline = now_ms() + lease_ms
begin_though_full()
redis.call("ZADD", workers, deadline, worker)
redis.call("SADD", "redis-consumer:queues", queue)
redis.call("SADD", own("processing"), processing_of(worker))
-- Missing if Redis restarted without its data. The registration of a successor with this name is kept.
redis.call("HSETNX", registrations, worker, token .. " " .. lease_ms)
if activity ~= "" then
  redis.call("HSET", own("activities"), worker, activity)
end
local lost = {}
for index = 6, #ARGV, 2 do
  local job, attempt = ARGV[index], ARGV[index + 1]
  if redis.call("HGET", holders, job) == holder_of(attempt, worker) and kind_of(job) == "hash" then
    redis.call("ZADD", leases, deadline, job)
    -- The janitor checks this field of running jobs.
    redis.call("HSET", job, "updated_at", at)
  else
    lost[#lost + 1] = job
  end
end
return lost
