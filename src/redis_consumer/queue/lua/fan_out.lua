-- Push the children of a running job into their queues, and let the job wait for them: from claimed to waiting for
-- children.
--
-- Arguments  job: the parent's key · attempt, worker: who runs it
--            count: number of children that were written; "pushed" to use those of the field `children`, which an older
--              worker has pushed
--            most_list_bytes: largest size of the field `children`; a larger field is left out
--            child_expire_s: seconds after which hashes of children of an earlier phase expire
--            share: percentage of the parent's progress that its children make up · then field, value, …
-- Returns    "ok", also if the same call was already carried out and its reply was lost; "lost" if this worker no longer
--            holds the job; "cancelled"; "missing children" if written children are missing, as after a failover.
-- Atomic     because a worker that dies in between would leave children without a parent that waits for them, or push
--            them twice.

local function queue_of(child)
  return string.match(child, "^[^:]*")
end

local job, attempt, worker, count, most_list_bytes, child_expire_s, share = unpack(ARGV, 1, 7)
local processing, waiting, holder = processing_of(worker), own("waiting"), holder_of(attempt, worker)
local family, children, open, unpushed = own("family", job), own("children", job), own("open", job), own("staged", job)

expect_queue()
expect("list", processing)
expect("zset", waiting)
local tree = job_tree()
tree.prepare(job)
if redis.call("HGET", holders, job) ~= holder or kind_of(job) ~= "hash" then
  return redis.call("HGET", family, "holder") == holder and "ok" or "lost"
end
if redis.call("SISMEMBER", cancelled, job) == 1 or tree.is_unwanted(job) then
  return "cancelled"
end
local is_adoption = count == "pushed"
if not is_adoption and redis.call("LLEN", unpushed) ~= tonumber(count) then
  return "missing children"
end
-- As at any end of a claim: if other software took the key out of the list, it runs the job.
local list = redis.call("LPOS", processing, job) and processing or redis.call("LPOS", queue, job) and queue
if not list then
  return "lost"
end
for start = 0, is_adoption and -1 or tonumber(count) - 1, page do
  for _, child in ipairs(redis.call("LRANGE", unpushed, start, start + page - 1)) do
    expect("list", queue_of(child))
  end
end

begin_though_full()
-- The next phase has a new set of attempts. Their numbers continue.
redis.call("HSET", forgiven, job, attempt)
add_to(totals, "divided", 1)

tree.forget_children(job, child_expire_s)
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
elseif count ~= "0" then
  redis.call("RENAME", unpushed, children)
  redis.call("PERSIST", children)
end

local total, names, bytes = redis.call("LLEN", children), {}, 0
for start = 0, total - 1, page do
  local queues, some = {}, redis.call("LRANGE", children, start, start + page - 1)
  if not is_adoption then
    write("SADD", open, some)
  end
  for _, child in ipairs(some) do
    local its_queue = queue_of(child)
    queues[its_queue] = queues[its_queue] or {}
    table.insert(queues[its_queue], child)
    bytes = bytes + #child + 1
    if bytes <= tonumber(most_list_bytes) then
      names[#names + 1] = child
    end
  end
  for its_queue, members in pairs(queues) do
    if not is_adoption then
      write("LPUSH", its_queue, members)
    end
  end
end

local ended = counts.done + counts.failed
redis.call("HSET", family, "state", "waiting", "queue", queue, "holder", holder, "total", total, "percent", 100 * ended,
  "done", counts.done, "failed", counts.failed, "share", share)
redis.call("ZADD", waiting, now_ms(), job)
local progress = total > 0 and math.floor(share * ended / total) or 0
tree.tell_progress(job, progress)
redis.call("HSET", job, "progress", progress, "total_jobs", total)
write("HSET", job, ARGV, 8)
if #names == total then
  redis.call("HSET", job, "children", table.concat(names, ","))
end
if redis.call("EXISTS", open) == 0 then
  tree.fan_in(job)
end
redis.call("HDEL", given_back, job)
end_claim(job)
redis.call("LREM", list, 1, job)
return "ok"
