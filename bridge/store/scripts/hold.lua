-- hold: one of several processes does something, and notes how far it is. KEYS[1] lease, KEYS[2] note.
-- ARGV[1] the process's token, ARGV[2] lease (ms; 0 gives it back), ARGV[3] TTL of the note (ms), ARGV[4] the
-- new note, where there is one.
--
-- It knows no task, so it stands without the ground of the others. A note is only ever written under its lease:
-- a process that was frozen, and awakes when another has taken over, can't write over what that one noted.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return {0, redis.call('GET', KEYS[2]) or ''}
end

if tonumber(ARGV[2]) > 0 then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
    redis.call('DEL', KEYS[1])
end
if ARGV[4] then
    redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
end
return {1, redis.call('GET', KEYS[2]) or ''}
