-- Give some children of a parent, with the fields of their hashes.
--
-- KEYS  1 hash of the parent
-- ARGV  1 index of the first one   2 how many
-- Returns {{key, field, value, …}, …}; only the key of a child whose hash is gone. Of a hash that is too large, or that
--   would make the reply too large, only some fields are given, because other software writes children too.
-- Atomic only to be one round trip.

expect("list", children_of .. KEYS[1])
local reply, room = {}, most_bytes
for _, child in ipairs(redis.call("LRANGE", children_of .. KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  local row, texts, bytes = {child}, {}, 0
  if kind_of(child) == "hash" then
    texts, bytes = fields_within(child, room)
  end
  room = room - bytes
  for _, text in ipairs(texts) do
    row[#row + 1] = text
  end
  reply[#reply + 1] = row
end
return reply
