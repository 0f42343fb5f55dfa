-- Functions and names that are sent before every script. Redis doesn't undo the writes of a script that fails. So each
-- script checks its keys before its first write, reads numbers so that no text is an error, and writes long lists in
-- parts. The claim of a job ends last. If a script fails unexpectedly, the job stays claimed.
--
-- The only key in KEYS is the queue (in read.lua the hash). Scripts make the names of all other keys, which Redis
-- allows except in a Cluster. ARGV has the arguments in the order in which each script's header names them.

if redis.replicate_commands then redis.replicate_commands() end

local queue = KEYS[1]

-- The name of one of our own keys: of this queue, or of another queue or a parent. See `redis_consumer.queue.scripts`.
local function own(kind, of)
  return "redis-consumer:" .. kind .. ":" .. (of or queue)
end

local function processing_of(worker)
  return "processing-" .. queue .. ":" .. worker
end

-- The fencing token of a run.
local function holder_of(attempt, worker)
  return attempt .. " " .. processing_of(worker)
end

local leases, holders, cancelled = own("leases"), own("holders"), own("cancelled")
local attempts, given_back, forgiven = own("attempts"), own("given-back"), own("forgiven")
local totals = own("totals")

-- Values that one command takes, at most: Lua's stack holds some thousand. An even number.
local page = 500
-- Runs of one job whose objects are noted for removal, at most.
local most_runs = 1000

local function kind_of(key)
  return redis.call("TYPE", key).ok
end

-- End the script if a key exists and has another type.
local function expect(kind, ...)
  for index = 1, select("#", ...) do
    local key = select(index, ...)
    local found = kind_of(key)
    if found ~= kind and found ~= "none" then
      error("WRONGTYPE key " .. key .. " holds a " .. found .. ", not a " .. kind .. ";")
    end
  end
end

-- End the script if the queue or a key named above has another type.
local function expect_queue()
  expect("list", queue)
  expect("zset", leases)
  expect("set", cancelled)
  expect("hash", holders, attempts, given_back, forgiven, totals)
end

-- The first write of a script that must work while memory is full: Redis refuses only the first one.
local function begin_though_full()
  redis.call("UNLINK", "redis-consumer:nothing")
end

local function end_claim(job)
  redis.call("ZREM", leases, job)
  redis.call("HDEL", holders, job)
end

-- Forget how often a job has run.
local function forget_runs(job)
  redis.call("HDEL", attempts, job)
  redis.call("HDEL", given_back, job)
  redis.call("HDEL", forgiven, job)
end

-- A whole number; 0 for any other text, and for a missing one.
local function number_of(text)
  return text and #text <= 13 and string.match(text, "^%-?%d+$") and tonumber(text) or 0
end

-- A field of a hash; false if the field or the hash is missing.
local function text_in(key, field)
  return kind_of(key) == "hash" and redis.call("HGET", key, field)
end

-- Like HINCRBY, but a text that isn't a number counts as 0.
local function add_to(key, field, amount)
  local sum = number_of(redis.call("HGET", key, field)) + amount
  redis.call("HSET", key, field, sum)
  return sum
end

-- The largest hash that is read whole, and the longest text that is read of any other.
local most_fields, most_bytes, most_short = 50000, 16777216, 4096
-- Largest size of a job's key in bytes. A supervisor doesn't renew the leases of larger keys.
local most_key = 60000

-- How many fields a hash has, and bytes; no value is read for that. More fields than are read aren't counted in bytes.
local function size_of(key)
  local fields, bytes = redis.call("HLEN", key), 0
  for _, name in ipairs(fields <= most_fields and redis.call("HKEYS", key) or {}) do
    bytes = bytes + #name + redis.call("HSTRLEN", key, name)
  end
  return fields, bytes
end

-- A field of a hash; false if it is missing or too long for its purpose.
local function short_in(key, field)
  return redis.call("HSTRLEN", key, field) <= most_short and redis.call("HGET", key, field)
end

-- All fields and values of a hash of so many bytes at most, of a larger one a few that are short; and the bytes of those.
local function fields_within(key, most)
  local fields, bytes = size_of(key)
  if fields <= most_fields and bytes <= most then
    return redis.call("HGETALL", key), bytes
  end
  local told = {}
  for _, name in ipairs({"status", "reason", "progress", "original_name", "input_file_name", "output_file_name",
      "output_url", "provenance_file_name", "objects", "total_time", "created_at", "updated_at", "updated_by"}) do
    local text = short_in(key, name)
    if text then
      told[#told + 1] = name
      told[#told + 1] = text
    end
  end
  return told, 0
end

-- Call a command with a list of values, or the part of it from `first` to `last`, as often as it takes.
local function write(command, key, values, first, last)
  for start = first or 1, last or #values, page do
    redis.call(command, key, unpack(values, start, math.min(start + page - 1, last or #values)))
  end
end

local function now_ms()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Deadlines in doubt, since the clock may have been set: see sweep.lua. A hash of marks has for each name since when
-- which deadline is seen. Gives the mark to write, and whether an owner that lives would have renewed it by now:
-- renewals are a third of a lease apart at most.
local function doubted(marks, name, deadline, now, length_ms)
  local since, of = string.match(redis.call("HGET", marks, name) or "", "^(%d+) ?(%d*)$")
  since = number_of(since)
  if since == 0 or since > now or of ~= deadline then
    since = now
  end
  return since .. " " .. deadline, now - since >= 0.4 * length_ms
end

-- For how many ms the leases of a worker last, by its registration: "<token> <ms>".
local function length_of(registration, default_ms)
  return tonumber(string.match(registration or "", " (%d+)$") or default_ms)
end

-- Let the hash of a job that has ended expire, where RESULT_TTL is set. Those of children last as long as their parent.
local function let_expire(job, ttl_s)
  if tonumber(ttl_s) > 0 and not text_in(job, "parent") then
    redis.call("EXPIRE", job, ttl_s)
  end
end

