-- Settle a job with its result or its reason: from claimed to done or failed.
--
-- Arguments  job: its key · attempt, worker: who runs it
--            outcome: "done"; "failed"; or "dead", failed and listed among the dead letters
--            at: now (ISO 8601, the value of updated_at among the fields)
--            orphan_ms: ms after which objects of attempts without a result are removed
--            child_expire_s: seconds after which hashes of its children expire
--            result_ttl_s: seconds after which its own hash expires; 0 for never · then field, value, …
-- Returns    "ok", also if the same call was already carried out and its reply was lost; "lost" if this worker no longer
--            holds the job or its hash is gone: no field is written; "cancelled" if the job or its parent was cancelled
--            before it was done: this worker still holds it, and settles it as failed.
-- Atomic     because the result must become visible together with the end of the claim. Only one of them would run the
--            job again, or lose it. A parent must also count its child's end exactly once.

local job, attempt, worker, outcome, at, orphan_ms, child_expire_s, result_ttl_s = unpack(ARGV, 1, 8)
local processing, dead, completed = processing_of(worker), own("dead"), own("completed")
local rates, orphaned_results = own("rates"), own("leftovers")

expect_queue()
expect("list", processing, dead)
expect("hash", rates)
expect("zset", orphaned_results)
expect("string", completed)
if redis.call("HGET", holders, job) ~= holder_of(attempt, worker) then
  return text_in(job, "updated_at") == at and "ok" or "lost"
end
local tree = text_in(job, "parent") and job_tree()
if tree then
  tree.prepare(job)
end
if outcome == "done" and (redis.call("SISMEMBER", cancelled, job) == 1 or (tree and tree.is_unwanted(job))) then
  return "cancelled"
end
local has_children = redis.call("EXISTS", own("family", job), own("staged", job)) > 0
if has_children then
  tree = tree or job_tree()
  tree.prepare(job)
end

begin_though_full()
-- If other software took the key out of the list, only its run counts. If a janitor put the key back into the queue and
-- no worker has taken it since, this worker still holds the job.
local list = redis.call("LPOS", processing, job) and processing or redis.call("LPOS", queue, job) and queue
if not list then
  redis.call("SREM", cancelled, job)
  end_claim(job)
  return "lost"
end

local function leave_list()
  redis.call("SREM", cancelled, job)
  if outcome == "dead" then -- a retry continues to count
    redis.call("HDEL", given_back, job)
  else
    forget_runs(job)
  end
  end_claim(job)
  redis.call("LREM", list, 1, job)
end

if kind_of(job) ~= "hash" then
  leave_list()
  return "lost"
end
if redis.call("HGET", job, "parent") then
  tree.tell_end(job, outcome == "done")
end
redis.call("HDEL", job, "timed_out")
write("HSET", job, ARGV, 9)
let_expire(job, result_ttl_s)
if has_children then
  tree.forget_unpushed(job)
  if outcome == "dead" then
    tree.keep_children(job)
  else
    tree.forget_children(job, child_expire_s)
  end
end
redis.call("SET", completed, number_of(redis.call("GET", completed)) + 1)
if outcome ~= "done" then
  add_to(totals, outcome, 1)
end
add_to(rates, string.sub(at, 1, 16), 1)
if outcome == "dead" then
  redis.call("LPUSH", dead, job)
end
local runs = tonumber(attempt)
if outcome == "done" then
  runs = runs - 1 -- the others may have uploaded; so may one that fails or is cancelled after its upload
end
if runs > 0 then
  local due = now_ms() + orphan_ms
  for earlier = math.max(1, runs - most_runs + 1), runs do
    redis.call("ZADD", orphaned_results, due, earlier .. " " .. job)
  end
end
leave_list()
return "ok"
