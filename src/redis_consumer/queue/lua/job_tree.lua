-- Functions for parent jobs and child jobs. They are sent before every script, and are defined only if a script calls
-- `job_tree`, because most jobs have neither parent nor children.
--
-- A child's hash names its parent in the field `parent`. The field counts only while the parent's set of open
-- children contains the child, because other software copies fields. Own keys, each followed by the parent's key:
--   family    hash: state ("waiting" for its children, or "gathering" their results), queue of the parent, holder
--             (who fanned out), total, done, failed, percent (sum of the children's progress), share (percent of the
--             parent's progress that they stand for), cursor of the sweep, cancelled
--   children  list: the children in order
--   open      set: those that haven't ended
--   staged    list: children that aren't in their queues yet

-- Greatest depth of nested parents. It also ends a loop that other software wrote.
local deepest = 8
-- Seconds for which keys that aren't needed any more are kept.
local kept_s = 259200

local function job_tree()
  local function parent_of(job)
    local parent = text_in(job, "parent")
    local is_child = parent and kind_of(own("open", parent)) == "set"
      and redis.call("SISMEMBER", own("open", parent), job) == 1
    return is_child and parent
  end

  -- To be called before the first write, so that no later write fails. Keys of a parent that other software overwrote are
  -- removed, and the queue of the parent must be a list.
  local function prepare(job, depth)
    for key, kind in pairs({[own("family", job)] = "hash", [own("children", job)] = "list", [own("open", job)] = "set",
        [own("staged", job)] = "list"}) do
      if kind_of(key) ~= kind then
        redis.call("UNLINK", key)
      end
    end
    local its_queue = redis.call("HGET", own("family", job), "queue")
    if its_queue then
      expect("list", its_queue)
      expect("zset", own("waiting", its_queue))
      expect("hash", own("totals", its_queue))
    end
    local parent = (depth or 0) < deepest and parent_of(job)
    if parent then
      prepare(parent, (depth or 0) + 1)
    end
  end

  local function percent_of(text)
    local percent = tonumber(text or nil)
    return percent and percent > 0 and math.floor(math.min(percent, 100)) or 0
  end

  -- The progress of a child grew by some percent. The parent shows the mean of its children, never less than before. The
  -- parent can be a child itself.
  local function add_progress(parent, gain, depth)
    local total, share = unpack(redis.call("HMGET", own("family", parent), "total", "share"))
    total, share = number_of(total), share and number_of(share) or 100
    if gain == 0 or total <= 0 or kind_of(parent) ~= "hash" then
      return
    end
    local sum = add_to(own("family", parent), "percent", gain)
    local percent = math.floor(math.max(0, math.min(sum / total, 100)) * share / 100)
    local before = percent_of(redis.call("HGET", parent, "progress"))
    if percent > before then
      redis.call("HSET", parent, "progress", percent)
      local grandparent = (depth or 0) < deepest and parent_of(parent)
      if grandparent then
        add_progress(grandparent, percent - before, (depth or 0) + 1)
      end
    end
  end

  -- A job is about to show this progress: its parent counts it.
  local function tell_progress(job, text)
    local parent = parent_of(job)
    if parent then
      add_progress(parent, percent_of(text) - percent_of(text_in(job, "progress")))
    end
  end

  -- Remove children that a run of a first phase has prepared but not pushed.
  local function forget_unpushed(job)
    local list = own("staged", job)
    for start = 0, redis.call("LLEN", list) - 1, page do
      redis.call("UNLINK", unpack(redis.call("LRANGE", list, start, start + page - 1)))
    end
    redis.call("UNLINK", list)
  end

  -- A parent has ended: its children's hashes expire after some seconds.
  local function forget_children(job, expire_s)
    local list = own("children", job)
    for start = 0, redis.call("LLEN", list) - 1, page do
      for _, child in ipairs(redis.call("LRANGE", list, start, start + page - 1)) do
        redis.call("EXPIRE", child, expire_s)
      end
    end
    redis.call("UNLINK", own("family", job), list, own("open", job))
  end

  -- Let the keys of a parent expire.
  local function keep_children(job)
    for _, kind in ipairs({"family", "children", "open"}) do
      redis.call("EXPIRE", own(kind, job), kept_s)
    end
  end

  -- Cancel the children: each one notices it at its claim or at its next step.
  local function disown_children(job, its_queue)
    if its_queue then
      redis.call("ZREM", own("waiting", its_queue), job)
    end
    redis.call("HSET", own("family", job), "cancelled", 1)
    keep_children(job)
  end

  local function is_unwanted(job, depth)
    local parent = (depth or 0) < deepest and parent_of(job)
    if not parent then
      return false
    end
    return kind_of(parent) ~= "hash" or text_in(own("family", parent), "cancelled")
      or is_unwanted(parent, (depth or 0) + 1)
  end

  -- The last child has ended: the parent goes to the front of its queue.
  local function fan_in(parent)
    local state, its_queue, is_cancelled = unpack(redis.call("HMGET", own("family", parent), "state", "queue",
      "cancelled"))
    if state ~= "waiting" or not its_queue then
      return
    end
    redis.call("ZREM", own("waiting", its_queue), parent)
    local status = text_in(parent, "status")
    -- If it has a result, a worker without support for child jobs wrote it.
    if is_cancelled or not status or status == "done" or status == "failed" then
      forget_children(parent, kept_s)
      return
    end
    redis.call("HSET", own("family", parent), "state", "gathering")
    redis.call("RPUSH", its_queue, parent)
  end

  -- A child has ended, for any reason. It counts once: only while the set contains it.
  local function end_child(parent, child, is_done)
    if redis.call("SREM", own("open", parent), child) == 0 then
      return
    end
    add_to(own("family", parent), is_done and "done" or "failed", 1)
    add_progress(parent, 100 - percent_of(text_in(child, "progress")))
    if redis.call("EXISTS", own("open", parent)) == 0 then
      fan_in(parent)
    end
  end

  -- A job ends: to be called before its last fields are written, since its progress so far is counted already.
  local function tell_end(job, is_done)
    local parent = parent_of(job)
    if parent then
      end_child(parent, job, is_done)
    end
  end

  return {
    prepare = prepare,
    percent_of = percent_of,
    add_progress = add_progress,
    tell_progress = tell_progress,
    forget_unpushed = forget_unpushed,
    forget_children = forget_children,
    keep_children = keep_children,
    disown_children = disown_children,
    is_unwanted = is_unwanted,
    fan_in = fan_in,
    end_child = end_child,
    tell_end = tell_end,
  }
end

