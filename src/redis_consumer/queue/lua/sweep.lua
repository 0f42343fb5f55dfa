-- Return jobs whose lease ran out to their queue: from claimed to waiting. Also count children that ended without notice:
-- a worker without support for families ran them, or they expired.
--
-- KEYS  1 queue   2 leases   3 holders   4 processing lists   5 orphans   6 lock   7 workers
--       8 registrations   9 rates   10 attempts   11 given back
--       12 forgiven   13 dead letters   14 parents that wait for children   15 time of the last sweep
-- ARGV  1 ms for which no other sweep may run   2 ms after which an entry without a lease counts as stranded
--       3 jobs at most   4 prefix of processing lists, up to the worker's name
--       5 first minute (ISO 8601) whose number of completed jobs is kept   6 most children to check
--       7 lease in ms, for workers that haven't registered one   8 seconds until hashes of ended jobs expire; 0: never
-- Returns {leases in doubt, job, list that it was in, attempt that ran ("" where none is known), …} of those returned,
--   or {-1} if another sweep has just run.
-- A lease ends at a time of the server's clock, which can be changed. A lease is in doubt if it ends later than its full
-- length from now (the clock was set back). It is also in doubt if it ran out, its worker still renewed it at the last
-- sweep, and that was long ago (the clock was set forward, or Redis was unavailable). It is void if it stays unchanged for
-- longer than workers need to renew it.
-- Atomic because a lease that is renewed between check and move would leave a job running and waiting at the same time.

expect("list", KEYS[1], KEYS[13])
expect("zset", KEYS[2], KEYS[7], KEYS[14])
expect("hash", KEYS[3], KEYS[5], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], totals_of .. KEYS[1])
expect("set", KEYS[4])
expect("string", KEYS[6], KEYS[15])
-- A lock that lasts longer than its full length was set before the clock was set back.
if redis.call("PTTL", KEYS[6]) > tonumber(ARGV[1]) then
  redis.call("UNLINK", KEYS[6])
end
if not redis.call("SET", KEYS[6], "1", "NX", "PX", ARGV[1]) then
  return {-1}
end
local now = now_ms()
local last = number_of(redis.call("GET", KEYS[15]))
local is_late = last > 0 and now - last > ARGV[7] * 2 / 3
redis.call("SET", KEYS[15], now)
local returned, seen = {0}, {}

local function give_back(list, job, how, attempt)
  -- If other software overwrote a list, its jobs are lost.
  local is_lost = kind_of(list) ~= "list" and kind_of(list) ~= "none"
  if is_lost or redis.call("LREM", list, 1, job) > 0 then
    redis.call("RPUSH", KEYS[1], job)
    add_to(totals_of .. KEYS[1], how, 1)
    for _, value in ipairs({job, list, attempt}) do
      returned[#returned + 1] = value
    end
  end
end

local function note(name, mark)
  seen[#seen + 1] = name
  seen[#seen + 1] = mark
end

-- Return the jobs of a part of the leases that have ended or are void.
local function sweep_leases(first, last_ms, is_doubtful)
  local found = redis.call("ZRANGEBYSCORE", KEYS[2], first, last_ms, "WITHSCORES", "LIMIT", 0, ARGV[3])
  for index = 1, #found, 2 do
    local job, deadline = found[index], found[index + 1]
    local attempt, list = string.match(redis.call("HGET", KEYS[3], job) or "", "^(%d+) (.+)$")
    local length = length_of(redis.call("HGET", KEYS[8], string.sub(list or "", #ARGV[4] + 1)), ARGV[7])
    local name = (list or "") .. " " .. job
    local mark, is_void = doubted(KEYS[5], name, deadline, now, length)
    local is_in_doubt = is_doubtful(tonumber(deadline), length) or redis.call("HGET", KEYS[5], name) == mark
    if is_void or not is_in_doubt and tonumber(deadline) <= now then
      if list then
        give_back(list, job, "lapsed", attempt)
      end
      redis.call("ZREM", KEYS[2], job)
      redis.call("HDEL", KEYS[3], job)
    elseif is_in_doubt then
      note(name, mark)
      returned[1] = returned[1] + 1
    end
  end
end
sweep_leases("-inf", now, function(deadline, length)
  -- A worker renews three times in the length of a lease. If this one ends sooner, its worker had stopped before.
  return is_late and deadline >= last + 0.6 * length
end)
sweep_leases("(" .. now + ARGV[7], "+inf", function(deadline, length) return deadline > now + length end)

-- A worker that died between move and lease, or that doesn't use leases, leaves an entry without a lease.
for _, list in ipairs(redis.call("SMEMBERS", KEYS[4])) do
  local entries = kind_of(list) == "list" and redis.call("LRANGE", list, 0, ARGV[3]) or {}
  for _, job in ipairs(entries) do
    if redis.call("HEXISTS", KEYS[3], job) == 0 or not redis.call("ZSCORE", KEYS[2], job) then
      local name = list .. " " .. job
      local since = number_of(redis.call("HGET", KEYS[5], name))
      since = since > 0 and since <= now and since
      if since and now - since >= tonumber(ARGV[2]) then
        give_back(list, job, "stranded", "")
      else
        note(name, since or now)
      end
    end
  end
  local worker = string.sub(list, #ARGV[4] + 1)
  if #entries == 0 and tonumber(redis.call("ZSCORE", KEYS[7], worker) or 0) < now then
    redis.call("SREM", KEYS[4], list)
    redis.call("ZREM", KEYS[7], worker)
    redis.call("HDEL", KEYS[8], worker)
  end
end
for _, worker in ipairs(redis.call("ZRANGEBYSCORE", KEYS[7], "(" .. now + ARGV[7], "+inf")) do
  local length = length_of(redis.call("HGET", KEYS[8], worker), ARGV[7])
  local deadline = redis.call("ZSCORE", KEYS[7], worker)
  if tonumber(deadline) > now + length then
    local mark, is_void = doubted(KEYS[5], worker, deadline, now, length)
    if is_void then
      redis.call("ZREM", KEYS[7], worker)
      redis.call("HDEL", KEYS[8], worker)
    else
      note(worker, mark)
    end
  end
end
redis.call("DEL", KEYS[5])
write("HSET", KEYS[5], seen)

-- Those whose last check is oldest come first. Large families are checked in batches.
local kin, left = families(), tonumber(ARGV[6])
for _, parent in ipairs(redis.call("ZRANGEBYSCORE", KEYS[14], "(" .. now, "+inf", "LIMIT", 0, page)) do
  redis.call("ZADD", KEYS[14], now, parent) -- checked before the clock was set back
end
for _, parent in ipairs(redis.call("ZRANGE", KEYS[14], 0, page)) do
  if left <= 0 then
    break
  end
  left = left - 1
  local family = family_of .. parent
  redis.call("ZADD", KEYS[14], now, parent)
  if not pcall(kin.prepare, parent) then
    -- Its queue, or the queue of its own parent, isn't a list at the moment. Other families aren't affected.
    left = left - 1
  elseif not redis.call("HGET", family, "state") then
    -- The family's keys were deleted, and children may have ended since. A worker finds out what is left.
    redis.call("ZREM", KEYS[14], parent)
    redis.call("RPUSH", KEYS[1], parent)
  elseif kind_of(parent) ~= "hash" then
    kin.disown_children(parent, KEYS[1])
  else
    local cursor = string.match(redis.call("HGET", family, "cursor") or "", "^%d+$") or "0"
    local found = redis.call("SSCAN", open_of .. parent, cursor, "COUNT", page)
    redis.call("HSET", family, "cursor", found[1])
    for _, child in ipairs(found[2]) do
      left = left - 1
      local status = text_in(child, "status")
      if not status or status == "done" or status == "failed" then
        kin.end_child(parent, child, status == "done")
      end
    end
    if redis.call("EXISTS", open_of .. parent) == 0 then
      kin.fan_in(parent)
    end
  end
end
for _, minute in ipairs(redis.call("HKEYS", KEYS[9])) do
  if minute < ARGV[5] then
    redis.call("HDEL", KEYS[9], minute)
  end
end
-- Other software that ends a job doesn't remove these keys. A few are removed in each sweep, so they don't accumulate. Dead
-- letters keep theirs.
for _, job in ipairs(redis.call("HRANDFIELD", KEYS[10], 5) or {}) do
  local kind = kind_of(job)
  local status = text_in(job, "status")
  local is_over = kind ~= "hash" or status == "done" or status == "failed"
  if is_over and redis.call("HEXISTS", KEYS[3], job) == 0 and not redis.call("LPOS", KEYS[13], job) then
    for index = 10, 12 do
      redis.call("HDEL", KEYS[index], job)
    end
  end
end
-- Dead letters whose hash has expired; the oldest are last.
for _, job in ipairs(tonumber(ARGV[8]) > 0 and redis.call("LRANGE", KEYS[13], -page, -1) or {}) do
  if kind_of(job) == "none" then
    redis.call("LREM", KEYS[13], -1, job)
    redis.call("HDEL", KEYS[10], job)
    redis.call("HDEL", KEYS[12], job)
  end
end
return returned
