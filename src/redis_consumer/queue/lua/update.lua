-- Write progress of a running job: claimed stays claimed.
--
-- Arguments  job: its key · attempt, worker: who runs it · then field, value, …
-- Returns    "ok"; "lost" if this worker no longer holds the job, or its hash is gone, which ends the claim; "cancelled"
--            if the job or its parent was cancelled: nothing is written.
-- Atomic     because a job that another worker takes between check and write would show the progress of the wrong run.

local job, attempt, worker = unpack(ARGV, 1, 3)
local processing = processing_of(worker)

expect_queue()
expect("list", processing)
if redis.call("HGET", holders, job) ~= holder_of(attempt, worker) then
  return "lost"
end
local tree = text_in(job, "parent") and job_tree()
if tree then
  tree.prepare(job)
end
if not redis.call("LPOS", processing, job) then
  -- A janitor has put it back. This worker still holds it until another one takes it.
  if redis.call("LREM", queue, 1, job) == 0 then
    return "lost"
  end
  redis.call("LPUSH", processing, job)
end
if kind_of(job) ~= "hash" then
  -- If it stayed in the list, the autoscaler would count a busy worker for ever.
  redis.call("LREM", processing, 1, job)
  redis.call("SREM", cancelled, job)
  forget_runs(job)
  end_claim(job)
  return "lost"
end
if redis.call("SISMEMBER", cancelled, job) == 1 or (tree and tree.is_unwanted(job)) then
  return "cancelled"
end
for index = 4, tree and #ARGV or 0, 2 do
  if ARGV[index] == "progress" then
    tree.tell_progress(job, ARGV[index + 1])
  end
end
write("HSET", job, ARGV, 4)
return "ok"
