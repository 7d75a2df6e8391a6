-- hold: one of several processes does something, and notes how far it is. KEYS[1] lease, KEYS[2] note, KEYS[3]
-- who held the lease last. ARGV[1] the process's token, ARGV[2] lease (ms; 0 gives it back), ARGV[3] TTL of the
-- note (ms), ARGV[4] 1 for a process that has nothing yet, 0 for one that goes on, ARGV[5] the new note, where
-- there is one.
--
-- It knows no task, so it stands without the ground of the others. A note is only ever written under its lease:
-- a process that was frozen, and awakes when another has taken over, can't write over what that one noted; not
-- even when that one has given the lease back by then. Who held it last is forgotten with the note only.
local holder = redis.call('GET', KEYS[1])
local last = redis.call('GET', KEYS[3])
local overtaken = ARGV[4] == '0' and last and last ~= ARGV[1]
if overtaken or (holder and holder ~= ARGV[1]) then
    return {0, redis.call('GET', KEYS[2]) or ''}
end

if tonumber(ARGV[2]) > 0 then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
    redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
if ARGV[5] then
    redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[3])
end
return {1, redis.call('GET', KEYS[2]) or ''}
