-- Return a job to its queue: from claimed to waiting.
--
-- KEYS  1 processing list   2 queue
-- ARGV  1 key of the job   2 "next" (taken again at once) or "last" (end of the line)
-- Returns 1, or 0 where the job isn't in the list any more: nothing is pushed.
-- Atomic because a worker that dies between the two steps would lose the job or leave it twice.

if redis.call("LREM", KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
redis.call(ARGV[2] == "next" and "RPUSH" or "LPUSH", KEYS[2], ARGV[1])
return 1
