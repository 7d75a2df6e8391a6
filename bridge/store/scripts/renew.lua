-- renew: the worker lives. ARGV[4] token, ARGV[5] lease (ms). Nothing visible changes, so nothing is published;
-- how many watch, which others learn as they publish, is asked for. A user who may not ask is no reason to fail.
if not KNOWN then return answer('lost') end
if not is_current(ARGV[4]) then return answer('fenced') end
if ended() then return answer('ended') end
set('lease', lease_until(ARGV[5]))
local counted = redis.pcall('PUBSUB', 'NUMSUB', CHANNEL)
watchers = tonumber(counted[2]) or -1
return answer('applied')
