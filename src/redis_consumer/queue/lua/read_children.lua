-- Give some children of a parent, with the fields of their hashes.
--
-- Arguments  parent: its key · first: index of the first child · count: how many children
-- Returns    {{key, field, value, …}, …}; only the key of a child whose hash is gone. Of a hash that is too large, or that
--            would make the reply too large, only some fields are given, because other software writes children too.
-- Atomic     only to be one round trip.

local parent, first, count = unpack(ARGV)

expect("list", own("children", parent))
local reply, room = {}, most_bytes
for _, child in ipairs(redis.call("LRANGE", own("children", parent), first, first + count - 1)) do
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
