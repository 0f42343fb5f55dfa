-- Give what a hash holds, to show it.
--
-- KEYS  1 hash
-- Returns {field, value, …}: all of them, or some where the hash is too large; none where it is gone, or no hash.
-- Atomic because the hash might grow between a look at its size and the reading.

return kind_of(KEYS[1]) == "hash" and fields_within(KEYS[1], most_bytes) or {}
