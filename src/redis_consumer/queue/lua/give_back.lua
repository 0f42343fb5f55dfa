-- Return a job to its queue: from claimed to waiting.
--
-- Arguments  job: its key · attempt, worker: who runs it
--            how: "next" (to the front), "crashed" (to the front, and the attempt counts), "late" (as "crashed"; it
--              exceeded its time) or "last" (to the back, after an outage)
--            outages_allowed: outages that aren't counted while other jobs succeed
--            cause: the error, "" for none
-- Returns    "ok"; "lost" if this worker no longer holds the job: nothing is pushed; "too late" if it exceeded its time
--            too often: this worker still holds it, and settles it as failed.
-- Atomic     because a worker that dies between the two steps would lose the job or leave it twice.

local job, attempt, worker, how, outages_allowed, cause = unpack(ARGV)
local processing, workers = processing_of(worker), own("workers")
local completed, recovered = own("completed"), own("recovered")

expect_queue()
expect("list", processing)
expect("zset", workers)
expect("string", completed, recovered)
if redis.call("HGET", holders, job) ~= holder_of(attempt, worker) then
  return "lost"
end
begin_though_full()
if not redis.call("LPOS", processing, job) then
  end_claim(job)
  return "lost"
end
-- The job fails the second time, unless this worker may be the cause and another one can run it.
if how == "late" and kind_of(job) == "hash" then
  local count, first = string.match(text_in(job, "timed_out") or "", "^(%d+) (.+)$")
  count = number_of(count) + 1
  local others = redis.call("ZCOUNT", workers, now_ms(), "+inf")
  if redis.call("ZSCORE", workers, worker) then
    others = others - 1
  end
  if count > 2 or (count == 2 and (first ~= worker or others <= 0)) then
    return "too late"
  end
  redis.call("HSET", job, "timed_out", count .. " " .. worker)
end
local is_counted = how == "crashed" or how == "late"
if how == "last" then
  -- If other jobs succeed between the outages of a job, it may be their cause. Later attempts count. After two
  -- such outages, it is enough that the service responded in between, because all other jobs may be done by then.
  local done, responded = number_of(redis.call("GET", completed)), number_of(redis.call("GET", recovered))
  local before = redis.call("HGET", given_back, job) or ""
  local count, at_done, at_responded = string.match(before, "^(%d+) (-?%d+) (-?%d+)$")
  count = number_of(count)
  if number_of(at_done or "-1") ~= done or (count > 1 and number_of(at_responded) ~= responded) then
    count = count + 1
  end
  redis.call("HSET", given_back, job, string.format("%d %d %d", count, done, responded))
  is_counted = count > tonumber(outages_allowed)
end
if not is_counted then
  add_to(forgiven, job, 1)
end
if cause ~= "" and kind_of(job) == "hash" then
  redis.call("HSET", job, "last_error", cause)
end
add_to(totals, "returned", 1)
redis.call(how == "last" and "LPUSH" or "RPUSH", queue, job)
redis.call("LREM", processing, 1, job)
end_claim(job)
return "ok"
