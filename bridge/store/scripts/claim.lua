-- claim: a gateway takes a lease, keeps it, or gives it back. KEYS[1] the lease's hash. ARGV[1] who asks, ARGV[2] for
-- how long (ms), 0 to give it back. Answers 1 if it is, or was, theirs, and 0 if somebody else has it.
--
-- It knows no task, so it stands without the ground of the others. It is politeness, so that only one asks the app;
-- what two might write at the same time is told apart by batch numbers.
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] then return 0 end

local lease = tonumber(ARGV[2])
if lease == 0 then
  redis.call('DEL', KEYS[1])
else
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  redis.call('HSET', KEYS[1], 'holder', ARGV[1])
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', now + lease))
end
return 1
