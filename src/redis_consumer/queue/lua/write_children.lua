-- Write the hashes of some children of a running job, which aren't in their queues yet: claimed stays claimed.
--
-- KEYS  1 holders   2 cancelled   3 hash of the parent
-- ARGV  1 holder ("<attempt> <processing list>")   2 number of children that are already staged
--       3 seconds after which a child's hash expires at the latest
--       4… of each child: key, number of texts that follow, field, value, …
-- Returns 1, also if the same call was already carried out; 0 if this worker no longer holds the job; 2 if it was
--   cancelled; 3 if children that were staged before are missing, as after a failover.
-- Atomic because a run that has lost the job would overwrite the children of the current run.

expect("hash", KEYS[1])
expect("set", KEYS[2])
local kin = families()
local job, list = KEYS[3], staged_of .. KEYS[3]
if redis.call("HGET", KEYS[1], job) ~= ARGV[1] or kind_of(job) ~= "hash" then
  return 0
end
kin.prepare(job)
if redis.call("SISMEMBER", KEYS[2], job) == 1 or kin.is_unwanted(job) then
  return 2
end
local before = tonumber(ARGV[2])
if before == 0 then
  kin.forget_staged(job)
end
local staged = redis.call("LLEN", list)
if staged ~= before then
  return staged > before and 1 or 3
end
local index = 4
while index < #ARGV do
  local child, count = ARGV[index], tonumber(ARGV[index + 1])
  redis.call("DEL", child)
  redis.call("HSET", child, "parent", job)
  write("HSET", child, ARGV, index + 2, index + 1 + count)
  redis.call("EXPIRE", child, ARGV[3])
  redis.call("RPUSH", list, child)
  index = index + 2 + count
end
redis.call("EXPIRE", list, kept_s)
return 1
