-- Settle a job with its result or its reason: from claimed to done or failed.
--
-- KEYS  1 processing list   2 holders   3 cancelled   4 hash of the job   5 leases   6 attempts   7 given back
--       8 dead letters   9 completed   10 rates   11 leftovers   12 queue   13 forgiven
-- ARGV  1 holder ("<attempt> <processing list>")
--       2 "done"; "failed"; or "dead", failed and listed among the dead letters
--       3 now (ISO 8601, the value of updated_at below)   4 ms after which objects of attempts without a result are removed
--       5 seconds after which hashes of its children expire   6 seconds after which its own hash expires; 0 for never
--       7… field, value, …
-- Returns 1, also if the same call was already carried out and its reply was lost; 0 if this worker no longer holds the
--   job or its hash is gone: no field is written; 2 if the job or its parent was cancelled before it was done: this
--   worker still holds it, and settles it as failed.
-- Atomic because the result must become visible together with the end of the claim. Only one of them would run the job
-- again, or lose it. A parent must also count its child's end exactly once.

expect("list", KEYS[1], KEYS[8], KEYS[12])
expect("hash", KEYS[2], KEYS[6], KEYS[7], KEYS[10], KEYS[13], totals_of .. KEYS[12])
expect("set", KEYS[3])
expect("zset", KEYS[5], KEYS[11])
expect("string", KEYS[9])
local job = KEYS[4]
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] then
  return text_in(job, "updated_at") == ARGV[3] and 1 or 0
end
local kin = text_in(job, "parent") and families()
if kin then
  kin.prepare(job)
end
if ARGV[2] == "done" and (redis.call("SISMEMBER", KEYS[3], job) == 1 or (kin and kin.is_unwanted(job))) then
  return 2
end
local has_family = redis.call("EXISTS", family_of .. job, staged_of .. job) > 0
if has_family then
  kin = kin or families()
  kin.prepare(job)
end

begin_though_full()
local function end_claim()
  redis.call("HDEL", KEYS[7], job)
  if ARGV[2] ~= "dead" then -- a retry continues to count
    redis.call("HDEL", KEYS[6], job)
    redis.call("HDEL", KEYS[13], job)
  end
  redis.call("SREM", KEYS[3], job)
  redis.call("ZREM", KEYS[5], job)
  redis.call("HDEL", KEYS[2], job)
end
-- If other software took the key out of the list, only its run counts. If a janitor put the key back into the queue and
-- no worker has taken it since, this worker still holds the job.
local list = redis.call("LPOS", KEYS[1], job) and KEYS[1] or redis.call("LPOS", KEYS[12], job) and KEYS[12]
if not list then
  redis.call("SREM", KEYS[3], job)
  redis.call("ZREM", KEYS[5], job)
  redis.call("HDEL", KEYS[2], job)
  return 0
end
if kind_of(job) ~= "hash" then
  end_claim()
  redis.call("LREM", list, 1, job)
  return 0
end
if redis.call("HGET", job, "parent") then
  kin.tell_end(job, ARGV[2] == "done")
end
redis.call("HDEL", job, "timed_out")
write("HSET", job, ARGV, 7)
let_expire(job, ARGV[6])
if has_family then
  kin.forget_staged(job)
  if ARGV[2] == "dead" then
    kin.keep_family(job)
  else
    kin.forget_family(job, ARGV[5])
  end
end
redis.call("SET", KEYS[9], number_of(redis.call("GET", KEYS[9])) + 1)
if ARGV[2] ~= "done" then
  add_to(totals_of .. KEYS[12], ARGV[2], 1)
end
add_to(KEYS[10], string.sub(ARGV[3], 1, 16), 1)
if ARGV[2] == "dead" then
  redis.call("LPUSH", KEYS[8], job)
end
local runs = tonumber(string.match(ARGV[1], "^%d+"))
if ARGV[2] == "done" then
  runs = runs - 1 -- the others may have uploaded; so may one that fails or is cancelled after its upload
end
if runs > 0 then
  local due = now_ms() + ARGV[4]
  for earlier = math.max(1, runs - most_runs + 1), runs do
    redis.call("ZADD", KEYS[11], due, earlier .. " " .. job)
  end
end
end_claim()
redis.call("LREM", list, 1, job)
return 1
