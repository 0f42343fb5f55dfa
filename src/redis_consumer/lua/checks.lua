-- Functions that are sent before every script. Redis doesn't undo the writes of a script that fails. So each script
-- checks its keys before its first write, reads numbers so that no text is an error, and writes long lists in parts.
-- The claim of a job ends last: a script that fails in a way that nobody thought of leaves the job claimed.

if redis.replicate_commands then redis.replicate_commands() end

-- Values that one command takes, at most: Lua's stack holds some thousand. An even number.
local page = 500
-- Runs of one job whose objects are noted for removal, at most.
local most_runs = 1000

local function kind_of(key)
  return redis.call("TYPE", key).ok
end

-- End the script where a key exists and is of another kind.
local function expect(kind, ...)
  for _, key in ipairs({...}) do
    local found = kind_of(key)
    if found ~= kind and found ~= "none" then
      error("WRONGTYPE key " .. key .. " holds a " .. found .. ", not a " .. kind .. ";")
    end
  end
end

-- The first write of a script that has to work while memory is full: Redis refuses only the first one.
local function begin_though_full()
  redis.call("UNLINK", "redis-consumer:nothing")
end

-- A whole number; 0 for any other text, and for none.
local function number_of(text)
  return text and #text <= 13 and string.match(text, "^%-?%d+$") and tonumber(text) or 0
end

-- A field of a hash; false where it, or the hash, is missing.
local function text_in(key, field)
  return kind_of(key) == "hash" and redis.call("HGET", key, field)
end

-- Like HINCRBY, but a text that is no number counts as 0.
local function add_to(key, field, amount)
  local sum = number_of(redis.call("HGET", key, field)) + amount
  redis.call("HSET", key, field, sum)
  return sum
end

-- Call a command with a list of values, or the part of it from `first` to `last`, as often as it takes.
local function write(command, key, values, first, last)
  for start = first or 1, last or #values, page do
    redis.call(command, key, unpack(values, start, math.min(start + page - 1, last or #values)))
  end
end
