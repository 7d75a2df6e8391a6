-- The short way of `append`. It stands in front of the common ground and of `append.lua`, and does what they would
-- do, to the byte, with the next small batch of a task that runs: that is nearly every call that Redis ever gets,
-- and the ground costs as much as all of this. Everything else it leaves, untouched, to the long way behind it.
do
  local TASK, LOG = KEYS[1], KEYS[2]
  local SMALL = 65536 -- far below what is too large to be published; for a larger batch the ground costs next to nothing

  local unpack = unpack or table.unpack

  local function num(n) return string.format('%.0f', n) end

  local token, state, epoch, attempt, batch, seq, bytes, chunk_at, cancel, code, owner, created = unpack(redis.call(
    'HMGET', TASK, 'token', 'state', 'epoch', 'attempt', 'batch', 'seq', 'bytes', 'chunk_at', 'cancel', 'code', 'owner',
    'created'))
  batch, seq, bytes, chunk_at = tonumber(batch), tonumber(seq), tonumber(bytes), tonumber(chunk_at)
  local added = 0
  for i = 9, #ARGV, 2 do added = added + #ARGV[i] end

  if token == ARGV[4] and token ~= '' and state == 'running' and epoch and attempt and batch and seq and bytes and chunk_at
    and tonumber(ARGV[5]) == batch + 1 and added > 0 and added <= SMALL and bytes + added <= tonumber(ARGV[7]) then
    local clock = redis.call('TIME')
    local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
    local lines, last = {}, ''
    for i = 8, #ARGV, 2 do
      local kind, data = ARGV[i], ARGV[i + 1]
      if kind ~= 'chunk' or now - chunk_at >= 1000 then
        data = string.sub(data, 1, -2) .. ',"at":' .. num(now) .. '}'
        if kind == 'chunk' then chunk_at = now end
      end
      seq, bytes = seq + 1, bytes + #data
      last = num(seq)
      local id = epoch .. '-' .. last
      if not redis.call('XADD', LOG, 'NOMKSTREAM', id, 'kind', kind, 'data', data) then break end -- the log is gone
      lines[#lines + 1] = kind .. ' ' .. data
    end
    if #lines > 0 then
      local moment = num(now + tonumber(ARGV[2]))
      redis.call('HSET', TASK, 'seq', last, 'bytes', num(bytes), 'chunk_at', num(chunk_at), 'batch', ARGV[5], 'length',
        ARGV[6])
      redis.call('PEXPIREAT', TASK, moment)
      redis.call('PEXPIREAT', LOG, moment)
      local watchers = redis.call('PUBLISH', ARGV[1], epoch .. '-' .. last .. '\n' .. table.concat(lines, '\n'))
      return {'applied', epoch, last, attempt, ARGV[5], cancel or '0', state, code or '', num(now), owner or '',
        created or '0', num(watchers)}
    end
  end
end
