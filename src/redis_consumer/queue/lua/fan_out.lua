-- Push the children of a running job into their queues, and let the job wait for them: from claimed to waiting for
-- children.
--
-- KEYS  1 processing list   2 holders   3 cancelled   4 hash of the parent   5 leases   6 given back   7 queue
--       8 forgiven
-- ARGV  1 holder ("<attempt> <processing list>")
--       2 number of staged children; -1 to use those of the field `children`, which an older worker has pushed
--       3 largest size of the field `children` in bytes; a larger field is left out
--       4 seconds after which hashes of children of an earlier phase expire
--       5 percentage of the parent's progress that its children make up   6… field, value, …
-- Returns 1, also if the same call was already carried out and its reply was lost; 0 if this worker no longer holds the
--   job; 2 if it was cancelled; 3 if staged children are missing, as after a failover.
-- Atomic because a worker that dies in between would leave children without a parent that waits for them, or
-- push them twice.

local function queue_of(child)
  return string.match(child, "^[^:]*")
end

expect("list", KEYS[1], KEYS[7])
expect("hash", KEYS[2], KEYS[6], KEYS[8], totals_of .. KEYS[7])
expect("set", KEYS[3])
expect("zset", KEYS[5], waiting_in .. KEYS[7])
local kin = families()
local job = KEYS[4]
kin.prepare(job)
local family, children, open = family_of .. job, children_of .. job, open_of .. job
if redis.call("HGET", KEYS[2], job) ~= ARGV[1] or kind_of(job) ~= "hash" then
  return redis.call("HGET", family, "holder") == ARGV[1] and 1 or 0
end
if redis.call("SISMEMBER", KEYS[3], job) == 1 or kin.is_unwanted(job) then
  return 2
end
local is_adoption = ARGV[2] == "-1"
if not is_adoption and redis.call("LLEN", staged_of .. job) ~= tonumber(ARGV[2]) then
  return 3
end
-- As at any end of a claim: if other software took the key out of the list, it runs the job.
local list = redis.call("LPOS", KEYS[1], job) and KEYS[1] or redis.call("LPOS", KEYS[7], job) and KEYS[7]
if not list then
  return 0
end
for start = 0, is_adoption and -1 or tonumber(ARGV[2]) - 1, page do
  for _, child in ipairs(redis.call("LRANGE", staged_of .. job, start, start + page - 1)) do
    expect("list", queue_of(child))
  end
end

begin_though_full()
-- The next phase has a new set of attempts. Their numbers continue.
redis.call("HSET", KEYS[8], job, string.match(ARGV[1], "^%d+"))
add_to(totals_of .. KEYS[7], "divided", 1)

kin.forget_family(job, ARGV[4])
local counts = {done = 0, failed = 0}
if is_adoption then
  for child in string.gmatch(redis.call("HGET", job, "children") or "", "[^,]+") do
    local status = text_in(child, "status")
    redis.call("RPUSH", children, child)
    if status and status ~= "done" and status ~= "failed" then
      redis.call("HSET", child, "parent", job)
      redis.call("SADD", open, child)
    else
      local kind = status == "done" and "done" or "failed"
      counts[kind] = counts[kind] + 1
    end
  end
elseif ARGV[2] ~= "0" then
  redis.call("RENAME", staged_of .. job, children)
  redis.call("PERSIST", children)
end

local total, names, bytes = redis.call("LLEN", children), {}, 0
for start = 0, total - 1, page do
  local queues, some = {}, redis.call("LRANGE", children, start, start + page - 1)
  if not is_adoption then
    write("SADD", open, some)
  end
  for _, child in ipairs(some) do
    local queue = queue_of(child)
    queues[queue] = queues[queue] or {}
    table.insert(queues[queue], child)
    bytes = bytes + #child + 1
    if bytes <= tonumber(ARGV[3]) then
      names[#names + 1] = child
    end
  end
  for queue, members in pairs(queues) do
    if not is_adoption then
      write("LPUSH", queue, members)
    end
  end
end

local now = now_ms()
redis.call("HSET", family, "state", "waiting", "queue", KEYS[7], "holder", ARGV[1],
  "total", total, "percent", 100 * (counts.done + counts.failed), "done", counts.done, "failed", counts.failed,
  "share", ARGV[5])
redis.call("ZADD", waiting_in .. KEYS[7], now, job)
local ended = total > 0 and math.floor(ARGV[5] * (counts.done + counts.failed) / total) or 0
kin.tell_progress(job, ended)
redis.call("HSET", job, "progress", ended, "total_jobs", total)
write("HSET", job, ARGV, 6)
if #names == total then
  redis.call("HSET", job, "children", table.concat(names, ","))
end
if redis.call("EXISTS", open) == 0 then
  kin.fan_in(job)
end
redis.call("HDEL", KEYS[6], job)
redis.call("ZREM", KEYS[5], job)
redis.call("HDEL", KEYS[2], job)
redis.call("LREM", list, 1, job)
return 1
