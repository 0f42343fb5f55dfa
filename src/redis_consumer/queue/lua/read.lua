-- Give the fields of a hash, to show them.
--
-- Key     the hash
-- Returns {field, value, …}: all fields, or some if the hash is too large; none if it is gone or isn't a hash.
-- Atomic because the hash could grow between the check of its size and the reading.

return kind_of(KEYS[1]) == "hash" and fields_within(KEYS[1], most_bytes) or {}
