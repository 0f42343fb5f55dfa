-- Return jobs whose lease ran out to their queue: from claimed to waiting. Also count children that ended without notice:
-- a worker without support for child jobs ran them, or they expired.
--
-- Arguments  every_ms: for how long no other sweep may run
--            stranded_ms: ms after which an entry without a lease counts as stranded
--            most_jobs: jobs at most · most_children: children to check at most
--            first_minute: the first one (ISO 8601) whose number of completed jobs is kept
--            lease_ms: for workers that haven't registered one
--            result_ttl_s: seconds until hashes of ended jobs expire; 0 for never
-- Returns    {leases in doubt, job, list that it was in, attempt that ran ("" where none is known), …} of those returned;
--            {0} if another sweep has just run.
-- Atomic     because a lease that is renewed between check and move would leave a job running and waiting at the same
--            time.
--
-- A lease ends at a time of the server's clock, which can be changed. A lease is in doubt if it ends later than its full
-- length from now (the clock was set back). It is also in doubt if it ran out, its worker still renewed it at the last
-- sweep, and that was long ago (the clock was set forward, or Redis was unavailable). It is void if it stays unchanged for
-- longer than workers need to renew it.

local every_ms, stranded_ms, most_jobs, most_children, first_minute, lease_ms, result_ttl_s = unpack(ARGV)
local workers, registrations, lists, marks = own("workers"), own("registrations"), own("processing"), own("orphans")
local lock, swept_at, dead, waiting, rates = own("sweep"), own("swept"), own("dead"), own("waiting"), own("rates")
local prefix = processing_of("")

expect_queue()
expect("list", dead)
expect("zset", workers, waiting)
expect("hash", marks, registrations, rates, own("activities"))
expect("set", lists)
expect("string", lock, swept_at)
-- A lock that lasts longer than its full length was set before the clock was set back.
if redis.call("PTTL", lock) > tonumber(every_ms) then
  redis.call("UNLINK", lock)
end
if not redis.call("SET", lock, "1", "NX", "PX", every_ms) then
  return {0}
end
local now = now_ms()
local last = number_of(redis.call("GET", swept_at))
local is_late = last > 0 and now - last > lease_ms * 2 / 3
redis.call("SET", swept_at, now)
local returned, seen = {0}, {}

local function return_job(list, job, how, attempt)
  -- If other software overwrote a list, its jobs are lost.
  local is_lost = kind_of(list) ~= "list" and kind_of(list) ~= "none"
  if is_lost or redis.call("LREM", list, 1, job) > 0 then
    redis.call("RPUSH", queue, job)
    add_to(totals, how, 1)
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
  local found = redis.call("ZRANGEBYSCORE", leases, first, last_ms, "WITHSCORES", "LIMIT", 0, most_jobs)
  for index = 1, #found, 2 do
    local job, deadline = found[index], found[index + 1]
    local attempt, list = string.match(redis.call("HGET", holders, job) or "", "^(%d+) (.+)$")
    local length = length_of(redis.call("HGET", registrations, string.sub(list or "", #prefix + 1)), lease_ms)
    local name = (list or "") .. " " .. job
    local mark, is_void = doubted(marks, name, deadline, now, length)
    local is_in_doubt = is_doubtful(tonumber(deadline), length) or redis.call("HGET", marks, name) == mark
    if is_void or not is_in_doubt and tonumber(deadline) <= now then
      if list then
        return_job(list, job, "lapsed", attempt)
      end
      end_claim(job)
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
sweep_leases("(" .. now + lease_ms, "+inf", function(deadline, length) return deadline > now + length end)

-- A worker that died between move and lease, or that doesn't use leases, leaves an entry without a lease.
for _, list in ipairs(redis.call("SMEMBERS", lists)) do
  local entries = kind_of(list) == "list" and redis.call("LRANGE", list, 0, most_jobs) or {}
  for _, job in ipairs(entries) do
    if redis.call("HEXISTS", holders, job) == 0 or not redis.call("ZSCORE", leases, job) then
      local name = list .. " " .. job
      local since = number_of(redis.call("HGET", marks, name))
      since = since > 0 and since <= now and since
      if since and now - since >= tonumber(stranded_ms) then
        return_job(list, job, "stranded", "")
      else
        note(name, since or now)
      end
    end
  end
  local worker = string.sub(list, #prefix + 1)
  if #entries == 0 and tonumber(redis.call("ZSCORE", workers, worker) or 0) < now then
    redis.call("SREM", lists, list)
    redis.call("ZREM", workers, worker)
    redis.call("HDEL", registrations, worker)
    redis.call("HDEL", own("activities"), worker)
  end
end
for _, worker in ipairs(redis.call("ZRANGEBYSCORE", workers, "(" .. now + lease_ms, "+inf")) do
  local length = length_of(redis.call("HGET", registrations, worker), lease_ms)
  local deadline = redis.call("ZSCORE", workers, worker)
  if tonumber(deadline) > now + length then
    local mark, is_void = doubted(marks, worker, deadline, now, length)
    if is_void then
      redis.call("ZREM", workers, worker)
      redis.call("HDEL", registrations, worker)
      redis.call("HDEL", own("activities"), worker)
    else
      note(worker, mark)
    end
  end
end
redis.call("DEL", marks)
write("HSET", marks, seen)

-- Those whose last check is oldest come first. Large numbers of children are checked in batches.
local tree, left = job_tree(), tonumber(most_children)
for _, parent in ipairs(redis.call("ZRANGEBYSCORE", waiting, "(" .. now, "+inf", "LIMIT", 0, page)) do
  redis.call("ZADD", waiting, now, parent) -- checked before the clock was set back
end
for _, parent in ipairs(redis.call("ZRANGE", waiting, 0, page)) do
  if left <= 0 then
    break
  end
  left = left - 1
  local family = own("family", parent)
  redis.call("ZADD", waiting, now, parent)
  if not pcall(tree.prepare, parent) then
    -- Its queue, or the queue of its own parent, isn't a list at the moment. Other parents aren't affected.
    left = left - 1
  elseif not redis.call("HGET", family, "state") then
    -- The parent's own keys were deleted, and children may have ended since. A worker finds out what is left.
    redis.call("ZREM", waiting, parent)
    redis.call("RPUSH", queue, parent)
  elseif kind_of(parent) ~= "hash" then
    tree.disown_children(parent, queue)
  else
    local cursor = string.match(redis.call("HGET", family, "cursor") or "", "^%d+$") or "0"
    local found = redis.call("SSCAN", own("open", parent), cursor, "COUNT", page)
    redis.call("HSET", family, "cursor", found[1])
    for _, child in ipairs(found[2]) do
      left = left - 1
      local status = text_in(child, "status")
      if not status or status == "done" or status == "failed" then
        tree.end_child(parent, child, status == "done")
      end
    end
    if redis.call("EXISTS", own("open", parent)) == 0 then
      tree.fan_in(parent)
    end
  end
end
for _, minute in ipairs(redis.call("HKEYS", rates)) do
  if minute < first_minute then
    redis.call("HDEL", rates, minute)
  end
end
-- Other software that ends a job doesn't remove these keys. A few are removed in each sweep, so they don't accumulate. Dead
-- letters keep theirs.
for _, job in ipairs(redis.call("HRANDFIELD", attempts, 5) or {}) do
  local kind = kind_of(job)
  local status = text_in(job, "status")
  local is_over = kind ~= "hash" or status == "done" or status == "failed"
  if is_over and redis.call("HEXISTS", holders, job) == 0 and not redis.call("LPOS", dead, job) then
    forget_runs(job)
  end
end
-- Dead letters whose hash has expired; the oldest are last.
for _, job in ipairs(tonumber(result_ttl_s) > 0 and redis.call("LRANGE", dead, -page, -1) or {}) do
  if kind_of(job) == "none" then
    redis.call("LREM", dead, -1, job)
    redis.call("HDEL", attempts, job)
    redis.call("HDEL", forgiven, job)
  end
end
return returned
