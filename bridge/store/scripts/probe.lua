-- probe: a gateway writes, and sends a message to itself. KEYS[1] its own hash. ARGV[1] channel, ARGV[2] message.
--
-- It knows no task, so it stands without the ground of the others. What it writes nobody reads: a server that
-- refuses writes, because it is full or lacks replicas, still answers reads and still publishes. While it does,
-- no worker can renew its lease; so the message goes out only where a write went well.
local TTL = 60000 -- ms; a gateway that is gone leaves its hash for so long

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

redis.call('HSET', KEYS[1], 'message', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', now + TTL))
return redis.call('PUBLISH', ARGV[1], ARGV[2])
