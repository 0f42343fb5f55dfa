-- Functions for parents and children. They are sent before the scripts that need them, and are defined only if a script
-- calls them, because most jobs have no family.
--
-- A child's hash names its parent in the field `parent`. The field counts only while the parent's set of open
-- children contains the child, because other software copies fields. Own keys, each followed by the parent's key:
--   family    hash: state ("waiting" for its children, or "gathering" their results), queue of the parent, holder
--             (who fanned out), total, done, failed, percent (sum of the children's progress), share (percent of the
--             parent's progress that they stand for), cursor of the sweep, cancelled
--   children  list: the children in order
--   open      set: those that haven't ended
--   staged    list: children that aren't in their queues yet
-- And `waiting`, followed by a queue: zset of its waiting parents, by the time (ms) of their last check.

local family_of, children_of = "redis-consumer:family:", "redis-consumer:children:"
local open_of, staged_of = "redis-consumer:open:", "redis-consumer:staged:"
local waiting_in = "redis-consumer:waiting:"
-- And `totals`, followed by a queue: hash of counts for metrics, see `redis_consumer.keys`.
local totals_of = "redis-consumer:totals:"
-- Greatest depth of nested families. It also ends a loop that other software wrote.
local deepest = 8
-- Seconds for which keys that aren't needed any more are kept.
local kept_s = 259200

local function families()
  local function parent_of(job)
    local parent = text_in(job, "parent")
    local is_child = parent and kind_of(open_of .. parent) == "set"
      and redis.call("SISMEMBER", open_of .. parent, job) == 1
    return is_child and parent
  end

  -- To be called before the first write, so that no later write fails. Keys of a family that other software overwrote are
  -- removed, and the queue of the parent must be a list.
  local function prepare(job, depth)
    for key, kind in pairs({[family_of .. job] = "hash", [children_of .. job] = "list", [open_of .. job] = "set",
        [staged_of .. job] = "list"}) do
      if kind_of(key) ~= kind then
        redis.call("UNLINK", key)
      end
    end
    local queue = redis.call("HGET", family_of .. job, "queue")
    if queue then
      expect("list", queue)
      expect("zset", waiting_in .. queue)
      expect("hash", totals_of .. queue)
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
    local total, share = unpack(redis.call("HMGET", family_of .. parent, "total", "share"))
    total, share = number_of(total), share and number_of(share) or 100
    if gain == 0 or total <= 0 or kind_of(parent) ~= "hash" then
      return
    end
    local sum = add_to(family_of .. parent, "percent", gain)
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
  local function forget_staged(job)
    local list = staged_of .. job
    for start = 0, redis.call("LLEN", list) - 1, page do
      redis.call("UNLINK", unpack(redis.call("LRANGE", list, start, start + page - 1)))
    end
    redis.call("UNLINK", list)
  end

  -- A parent has ended: its children's hashes expire after some seconds.
  local function forget_family(job, expire_s)
    local list = children_of .. job
    for start = 0, redis.call("LLEN", list) - 1, page do
      for _, child in ipairs(redis.call("LRANGE", list, start, start + page - 1)) do
        redis.call("EXPIRE", child, expire_s)
      end
    end
    redis.call("UNLINK", family_of .. job, list, open_of .. job)
  end

  -- Let the keys of a family expire.
  local function keep_family(job)
    for _, kind in ipairs({family_of, children_of, open_of}) do
      redis.call("EXPIRE", kind .. job, kept_s)
    end
  end

  -- Cancel the children: each one notices it at its claim or at its next step.
  local function disown_children(job, queue)
    if queue then
      redis.call("ZREM", waiting_in .. queue, job)
    end
    redis.call("HSET", family_of .. job, "cancelled", 1)
    keep_family(job)
  end

  local function is_unwanted(job, depth)
    local parent = (depth or 0) < deepest and parent_of(job)
    if not parent then
      return false
    end
    return kind_of(parent) ~= "hash" or text_in(family_of .. parent, "cancelled")
      or is_unwanted(parent, (depth or 0) + 1)
  end

  -- The last child has ended: the parent goes to the front of its queue.
  local function fan_in(parent)
    local state, queue, cancelled = unpack(redis.call("HMGET", family_of .. parent, "state", "queue", "cancelled"))
    if state ~= "waiting" or not queue then
      return
    end
    redis.call("ZREM", waiting_in .. queue, parent)
    local status = text_in(parent, "status")
    -- If it has a result, a worker without support for families wrote it.
    if cancelled or not status or status == "done" or status == "failed" then
      forget_family(parent, kept_s)
      return
    end
    redis.call("HSET", family_of .. parent, "state", "gathering")
    redis.call("RPUSH", queue, parent)
  end

  -- A child has ended, for any reason. It counts once: only while the set contains it.
  local function end_child(parent, child, is_done)
    if redis.call("SREM", open_of .. parent, child) == 0 then
      return
    end
    add_to(family_of .. parent, is_done and "done" or "failed", 1)
    add_progress(parent, 100 - percent_of(text_in(child, "progress")))
    if redis.call("EXISTS", open_of .. parent) == 0 then
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
    forget_staged = forget_staged,
    forget_family = forget_family,
    keep_family = keep_family,
    disown_children = disown_children,
    is_unwanted = is_unwanted,
    fan_in = fan_in,
    end_child = end_child,
    tell_end = tell_end,
  }
end

