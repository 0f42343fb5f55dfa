-- Give some children of a parent with what their hashes hold.
--
-- KEYS  1 hash of the parent
-- ARGV  1 index of the first one   2 how many
-- Returns {{key, field, value, …}, …}; only the key for one whose hash is gone.
-- Atomic only to be one round trip.

expect("list", children_of .. KEYS[1])
local reply = {}
for _, child in ipairs(redis.call("LRANGE", children_of .. KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  local row = {child}
  for _, text in ipairs(kind_of(child) == "hash" and redis.call("HGETALL", child) or {}) do
    row[#row + 1] = text
  end
  reply[#reply + 1] = row
end
return reply
