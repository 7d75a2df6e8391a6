-- The short way of `append`. It stands in front of the common ground and of `append.lua`, and does what they would
-- do, to the byte, with the next small batch of a task that runs: that is nearly every call that Redis ever gets,
-- and the ground costs as much as all of this. Everything else it leaves, untouched, to the long way behind it.
do
  local TASK, LOG = KEYS[1], KEYS[2]
  local SMALL = 65536 -- far below what is too large to be published; for a larger batch the ground costs next to nothing

  local unpack = unpack or table.unpack

  -- For counts: quicker than num(), but where a machine has 32 bits it has no room for a time in milliseconds.
  local function int(n) return string.format('%d', n) end

  local token, state, epoch, attempt, batch, seq, bytes, chunk_at, cancel, code, owner, created = unpack(redis.call(
    'HMGET', TASK, 'token', 'state', 'epoch', 'attempt', 'batch', 'seq', 'bytes', 'chunk_at', 'cancel', 'code', 'owner',
    'created'))
  batch, seq, bytes = tonumber(batch), tonumber(seq), tonumber(bytes)
  local added = 0
  for i = 9, #ARGV, 2 do added = added + #ARGV[i] end

  local whole = epoch and attempt and batch and seq and bytes and tonumber(chunk_at)
  if whole and token == ARGV[4] and token ~= '' and state == 'running' and tonumber(ARGV[5]) == batch + 1
    and added > 0 and added <= SMALL and bytes + added <= tonumber(ARGV[7]) then
    local clock = redis.call('TIME')
    local now = clock[1] .. string.format('%03d', math.floor(tonumber(clock[2]) / 1000))
    local lines, last = {}, ''
    for i = 8, #ARGV, 2 do
      local kind, data = ARGV[i], ARGV[i + 1]
      if kind ~= 'chunk' or now - chunk_at >= 1000 then
        data = string.sub(data, 1, -2) .. ',"at":' .. now .. '}'
        if kind == 'chunk' then chunk_at = now end
      end
      seq, bytes = seq + 1, bytes + #data
      last = int(seq)
      local id = epoch .. '-' .. last
      if not redis.call('XADD', LOG, 'NOMKSTREAM', id, 'kind', kind, 'data', data) then break end -- the log is gone
      lines[#lines + 1] = kind .. ' ' .. data
    end
    if #lines > 0 then
      local moment = string.format('%.0f', now + ARGV[2])
      redis.call('HSET', TASK, 'seq', last, 'bytes', int(bytes), 'chunk_at', chunk_at, 'batch', ARGV[5], 'length',
        ARGV[6])
      redis.call('PEXPIREAT', TASK, moment)
      redis.call('PEXPIREAT', LOG, moment)
      local watchers = redis.call('PUBLISH', ARGV[1], epoch .. '-' .. last .. '\n' .. table.concat(lines, '\n'))
      return {'applied', epoch, last, attempt, ARGV[5], cancel or '0', state, code or '', now, owner or '',
        created or '0', int(watchers)}
    end
  end
end
