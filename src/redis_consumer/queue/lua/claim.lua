-- Claim the oldest waiting job: from waiting to claimed.
--
-- Arguments  moved: key of a job that a blocking move has already put into the processing list, "" to move one
--            worker: its name · at: now (ISO 8601) · lease_ms: how long the lease lasts
--            max_attempts: attempts allowed · orphan_ms: ms after which objects of attempts are removed
--            result_ttl_s: seconds after which hashes of ended jobs expire; 0 for never
-- Returns    {"claimed", attempt, key, field, value, …}, {"empty"}; or, with the key dropped from the list,
--            {"gone", key} (no such hash), {"no hash", key, type}, {"final", key, status} (a duplicate of a job that has
--            its result), {"held", key, holder} (a duplicate of a running job), {"dead", key, attempts} (no attempt is
--            left), {"waits", key} (for its children), {"unwanted", key} (its parent was cancelled, or is gone: it ends
--            as failed) or {"too large", key, why} (its hash, or the key: it ends as failed).
-- Atomic     because two workers that check a job and then take it would both run it, and a job that expires between
--            check and write would reappear as a hash with two fields.

local job, worker, at, lease_ms, max_attempts, orphan_ms, result_ttl_s = unpack(ARGV)
local processing, dead, orphaned_results = processing_of(worker), own("dead"), own("leftovers")

expect_queue()
expect("list", processing, dead)
expect("zset", orphaned_results)
expect("set", own("processing"))
local now = now_ms()

if job == "" then
  job = redis.call("LMOVE", queue, processing, "RIGHT", "LEFT")
  if not job then
    -- A blocking move follows. The sweep must know the list, in case the worker dies directly after the move.
    redis.call("SADD", own("processing"), processing)
    return {"empty"}
  end
end

-- From here on the key is in the list. If anything fails, a sweep returns it.
local list = string.match(redis.call("HGET", holders, job) or "", "^%d+ (.+)$")
if list and (kind_of(list) == "list" or kind_of(list) == "none") then
  local deadline = redis.call("ZSCORE", leases, job)
  if deadline and tonumber(deadline) > now then
    -- The janitor or a producer pushed a running job again. Its key belongs into its holder's list.
    redis.call("LREM", processing, 1, job)
    if not redis.call("LPOS", list, job) then
      redis.call("LPUSH", list, job)
    end
    return {"held", job, list}
  end
end

local function drop(...)
  redis.call("SREM", cancelled, job)
  forget_runs(job)
  end_claim(job)
  redis.call("LREM", processing, 1, job)
  return {...}
end

local kind = kind_of(job)
if string.sub(job, 1, #"redis-consumer:") == "redis-consumer:" then
  return drop("no hash", job, "record of the queue")
end
if kind == "none" then
  return drop("gone", job)
end
if kind ~= "hash" then
  return drop("no hash", job, kind)
end
local fields, bytes = size_of(job)
local status, parent, phase = short_in(job, "status"), short_in(job, "parent"), short_in(job, "next_phase")
local tree = (parent or phase) and job_tree()
if tree then
  tree.prepare(job)
end
if status == "done" or status == "failed" then
  if parent then
    tree.tell_end(job, status == "done")
  end
  if phase then -- ended by a worker without support for child jobs, before its second phase
    tree.forget_children(job, kept_s)
  end
  return drop("final", job, status)
end

local function fail(reason)
  tree = tree or job_tree()
  tree.prepare(job)
  tree.tell_end(job, false)
  tree.forget_unpushed(job)
  redis.call("HSET", job, "status", "failed", "reason", reason, "updated_at", at, "updated_by", worker)
end

if parent and tree.is_unwanted(job) then
  fail("JobCancelled: job " .. job .. ": its parent job was cancelled, or is gone; submit it again if it was a mistake")
  tree.forget_children(job, kept_s)
  add_to(totals, "cancelled", 1)
  return drop("unwanted", job)
end
if phase and redis.call("HGET", own("family", job), "state") == "waiting" then
  -- Its attempts are kept: their numbers continue in its next phase.
  redis.call("LREM", processing, 1, job)
  return {"waits", job}
end

local excess = #job > most_key and "its key is too long, with " .. #job .. " bytes, allowed are " .. most_key
  .. "; name the job by a shorter one"
  or (fields > most_fields or bytes > most_bytes) and "its hash is too large, with " .. fields .. " fields"
  .. (bytes > 0 and " of " .. bytes .. " bytes" or "") .. ", allowed are " .. most_fields .. " fields of " .. most_bytes
  .. " bytes; put what is large into the bucket"
if excess then
  fail("InvalidJob: job " .. string.sub(job, 1, 200) .. ": " .. excess)
  tree.forget_children(job, kept_s)
  let_expire(job, result_ttl_s)
  add_to(totals, "failed", 1)
  return drop("too large", job, excess)
end

-- No number is used twice, so that a late run of an earlier attempt can't be taken for this one.
local attempt = add_to(attempts, job, 1)
local runs = attempt - 1 - number_of(redis.call("HGET", forgiven, job))
if runs >= tonumber(max_attempts) then
  local last = short_in(job, "last_error")
  fail("AttemptsExhausted: job " .. job .. ": its worker died or gave up in each of " .. runs .. " attempts"
    .. (last and " (the last time: " .. last .. ")" or "")
    .. "; look at the worker's log, then run redis-consumer dead retry")
  tree.keep_children(job)
  let_expire(job, result_ttl_s)
  redis.call("LPUSH", dead, job)
  add_to(totals, "exhausted", 1)
  for earlier = math.max(1, attempt - most_runs), attempt - 1 do
    redis.call("ZADD", orphaned_results, now + orphan_ms, earlier .. " " .. job)
  end
  drop()
  redis.call("HSET", attempts, job, attempt) -- a retry continues to count from here
  return {"dead", job, runs}
end
if tonumber(result_ttl_s) > 0 and not parent then
  redis.call("PERSIST", job) -- of an earlier life
end
redis.call("ZADD", leases, now + lease_ms, job)
redis.call("HSET", holders, job, holder_of(attempt, worker))
redis.call("ZREM", orphaned_results, attempt .. " " .. job) -- of an earlier life: what this run uploads may count
redis.call("HSET", job, "updated_at", at, "updated_by", worker)
redis.call("HDEL", job, "reason", "last_error") -- of an earlier life; clients read the reason for every job
local reply = {"claimed", attempt, job}
for _, text in ipairs(redis.call("HGETALL", job)) do
  reply[#reply + 1] = text
end
return reply
