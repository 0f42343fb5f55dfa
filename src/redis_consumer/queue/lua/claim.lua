-- Claim the oldest waiting job: from waiting to claimed.
--
-- KEYS  1 queue   2 processing list   3 leases   4 holders   5 attempts   6 given back   7 dead letters
--       8 leftovers   9 cancelled   10 forgiven   11 processing lists
-- ARGV  1 key of a job that a blocking move has already put into the list, "" to move one
--       2 now (ISO 8601)   3 name of the worker   4 lease in ms   5 attempts allowed
--       6 ms after which objects of attempts are removed   7 seconds after which hashes of ended jobs expire; 0 for never
-- Returns {"claimed", attempt, key, field, value, …}, {"empty"}; or, with the key dropped from the list,
--   {"gone", key} (no such hash), {"no hash", key, type}, {"final", key, status} (a duplicate of a job that has its
--   result), {"held", key, holder} (a duplicate of a running job), {"dead", key, attempts} (no attempt is left),
--   {"waits", key} (for its children), {"unwanted", key} (its parent was cancelled, or is gone: it ends as failed) or
--   {"too large", key, why} (its hash, or the key: it ends as failed).
-- Atomic because two workers that check a job and then take it would both run it, and a job that expires between check
-- and write would reappear as a hash with two fields.

expect("list", KEYS[1], KEYS[2], KEYS[7])
expect("zset", KEYS[3], KEYS[8])
expect("hash", KEYS[4], KEYS[5], KEYS[6], KEYS[10], totals_of .. KEYS[1])
expect("set", KEYS[9], KEYS[11])
local now = now_ms()
local queue, processing, leases, holders = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local job = ARGV[1]
if job == "" then
  job = redis.call("LMOVE", queue, processing, "RIGHT", "LEFT")
  if not job then
    -- A blocking move follows. The sweep must know the list, in case the worker dies directly after the move.
    redis.call("SADD", KEYS[11], processing)
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
  redis.call("ZREM", leases, job)
  redis.call("SREM", KEYS[9], job)
  for _, index in ipairs({4, 5, 6, 10}) do
    redis.call("HDEL", KEYS[index], job)
  end
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
local kin = (parent or phase) and families()
if kin then
  kin.prepare(job)
end
if status == "done" or status == "failed" then
  if parent then
    kin.tell_end(job, status == "done")
  end
  if phase then -- ended by a worker without support for families, before its second phase
    kin.forget_family(job, kept_s)
  end
  return drop("final", job, status)
end
if parent and kin.is_unwanted(job) then
  kin.tell_end(job, false)
  kin.forget_staged(job)
  kin.forget_family(job, kept_s)
  redis.call("HSET", job, "status", "failed", "updated_at", ARGV[2], "updated_by", ARGV[3], "reason",
    "JobCancelled: job " .. job .. ": its parent job was cancelled, or is gone; submit it again if it was a mistake")
  add_to(totals_of .. queue, "cancelled", 1)
  return drop("unwanted", job)
end
if phase and redis.call("HGET", family_of .. job, "state") == "waiting" then
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
  kin = kin or families()
  kin.prepare(job)
  kin.tell_end(job, false)
  kin.forget_staged(job)
  kin.forget_family(job, kept_s)
  redis.call("HSET", job, "status", "failed", "updated_at", ARGV[2], "updated_by", ARGV[3], "reason",
    "InvalidJob: job " .. string.sub(job, 1, 200) .. ": " .. excess)
  let_expire(job, ARGV[7])
  add_to(totals_of .. queue, "failed", 1)
  return drop("too large", job, excess)
end

-- No number is used twice, so that a late run of an earlier attempt can't be taken for this one.
local attempt = add_to(KEYS[5], job, 1)
local runs = attempt - 1 - number_of(redis.call("HGET", KEYS[10], job))
if runs >= tonumber(ARGV[5]) then
  local last = short_in(job, "last_error")
  local reason = "AttemptsExhausted: job " .. job .. ": its worker died or gave up in each of " .. runs
    .. " attempts" .. (last and " (the last time: " .. last .. ")" or "")
    .. "; look at the worker's log, then run redis-consumer dead retry"
  redis.call("HSET", job, "status", "failed", "reason", reason, "updated_at", ARGV[2], "updated_by", ARGV[3])
  kin = kin or families()
  kin.prepare(job)
  kin.tell_end(job, false)
  kin.forget_staged(job)
  kin.keep_family(job)
  let_expire(job, ARGV[7])
  redis.call("LPUSH", KEYS[7], job)
  add_to(totals_of .. queue, "exhausted", 1)
  for earlier = math.max(1, attempt - most_runs), attempt - 1 do
    redis.call("ZADD", KEYS[8], now + ARGV[6], earlier .. " " .. job)
  end
  drop()
  redis.call("HSET", KEYS[5], job, attempt) -- a retry continues to count from here
  return {"dead", job, runs}
end
if tonumber(ARGV[7]) > 0 and not parent then
  redis.call("PERSIST", job) -- of an earlier life
end
redis.call("ZADD", leases, now + ARGV[4], job)
redis.call("HSET", holders, job, attempt .. " " .. processing)
redis.call("ZREM", KEYS[8], attempt .. " " .. job) -- of an earlier life: what this run uploads may count
redis.call("HSET", job, "updated_at", ARGV[2], "updated_by", ARGV[3])
redis.call("HDEL", job, "reason", "last_error") -- of an earlier life; clients read the reason for every job
local reply = {"claimed", attempt, job}
for _, text in ipairs(redis.call("HGETALL", job)) do
  reply[#reply + 1] = text
end
return reply
