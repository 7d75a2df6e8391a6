-- The ground that every script stands on; it is put in front of each of them when they are loaded.
--
-- KEYS[1] the task's hash, KEYS[2] its log. ARGV[1] channel, ARGV[2] TTL while it lives, ARGV[3] TTL
-- after its end (ms); a script's own arguments begin at ARGV[4].
--
-- Numbers are turned into text by num(): Lua would write a time in milliseconds as 1.76e+12.
-- One script is one step: what is checked, appended, given a TTL and published can't be torn apart.

local TASK, LOG, CHANNEL = KEYS[1], KEYS[2], ARGV[1]
local LIVE_TTL, ENDED_TTL = ARGV[2], ARGV[3]
local PUBLISH_LIMIT = 1048576 -- larger batches are announced, and readers take them from the log

local unpack = unpack or table.unpack

local function num(n) return string.format('%.0f', n) end

local clock = redis.call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local FIELDS = {'epoch', 'seq', 'state', 'attempt', 'token', 'tokens', 'batch', 'lease', 'cancel',
  'owner', 'bytes', 'length', 'created', 'started', 'code', 'chunk_at', 'creation', 'restore', 'ended'}
local NUMBERS = {epoch = true, seq = true, attempt = true, batch = true, lease = true, cancel = true,
  bytes = true, created = true, started = true, chunk_at = true, ended = true}

local task = {} -- the hash as it is now
local dirty = {} -- the fields to be written
local lines = {} -- the events to be published
local published_bytes = 0
local watchers = -1 -- how many follow the channel, where the script came to know it

local values = redis.call('HMGET', TASK, unpack(FIELDS))
for i, name in ipairs(FIELDS) do
  local value = values[i] or ''
  if NUMBERS[name] then value = tonumber(value) or 0 end
  task[name] = value
end
-- Only one of the two keys left means that Redis lost something: such a task counts as unknown.
local KNOWN = task.epoch > 0 and redis.call('EXISTS', LOG) == 1
local function ended() return task.state ~= 'queued' and task.state ~= 'running' end

local function set(name, value)
  task[name] = value
  dirty[name] = true
end

-- Append one event to the log as it is, and remember it for publishing.
local function append(kind, data)
  set('seq', task.seq + 1)
  set('bytes', task.bytes + #data)
  redis.call('XADD', LOG, num(task.epoch) .. '-' .. num(task.seq), 'kind', kind, 'data', data)
  lines[#lines + 1] = kind .. ' ' .. data
  published_bytes = published_bytes + #data
end

-- Append a new event: with the time, but for most chunks. Data is a JSON object, never empty.
local function emit(kind, data)
  if kind ~= 'chunk' or NOW - task.chunk_at >= 1000 then
    data = string.sub(data, 1, -2) .. ',"at":' .. num(NOW) .. '}'
    if kind == 'chunk' then set('chunk_at', NOW) end
  end
  append(kind, data)
end

-- The replication id: another one after a failover, and after a restart. '' where the server doesn't tell.
local function server()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

-- Whether this is another server than the one on which the epoch began. Then it may have lost the newest events,
-- and the ids that come next may have been given before, to other text that somebody has read. The worker
-- itself notices and writes all anew (`restore`). Everyone else asks this first, and begins a new epoch.
local function moved()
  local before, now = redis.call('HGET', TASK, 'server') or '', server()
  return before ~= '' and now ~= '' and before ~= now
end

-- Begin a new life of the log. Its name is greater than that of every life known before, also where only
-- the old log is left to tell it.
local function new_epoch(known_before)
  local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  if last then known_before = math.max(known_before, tonumber(string.match(last[1], '^%d+'))) end
  redis.call('DEL', LOG)
  set('epoch', math.max(NOW, task.epoch + 1, known_before + 1))
  set('seq', 0)
  set('bytes', 0)
  set('chunk_at', 0)
  set('server', server())
end

-- The first life of the log, as far as anybody knows: of one that was lost no token counts any more, and
-- nothing that `report` remembers.
local function first_epoch()
  if task.epoch > 0 then set('reports', '') end
  new_epoch(0)
  set('tokens', '')
end

local function emit_state()
  local function time(t) if t > 0 then return num(t) else return 'null' end end
  emit('state', '{"state":"' .. task.state .. '","attempt":' .. num(task.attempt)
    .. ',"cancel_requested":' .. tostring(task.cancel == 1)
    .. ',"created_at":' .. time(task.created) .. ',"started_at":' .. time(task.started) .. '}')
end

local function emit_reset(reason)
  emit('reset', '{"reason":"' .. reason .. '","attempt":' .. num(task.attempt) .. '}')
end

-- The same log in a new epoch, but for the events of the kind `without`.
local function rewrite(reason, without)
  local entries = redis.call('XRANGE', LOG, '-', '+')
  new_epoch(0)
  emit_reset(reason)
  for _, entry in ipairs(entries) do
    local kind, data = entry[2][2], entry[2][4]
    if kind ~= without then append(kind, data) end
  end
end

-- Before somebody appends who isn't the worker: where ids could be given again, the same log in a new epoch.
local function secure_ids()
  if moved() then rewrite('log_lost', '') end
end

-- An end that no worker wrote. Code '' means: no error. Both texts stand between quotes as they are.
local function emit_end(state, code, message)
  local error = 'null'
  if code ~= '' then error = '{"code":"' .. code .. '","message":"' .. message .. '"}' end
  local length = task.length
  if length == '' then length = '{}' end
  emit('end', '{"state":"' .. state .. '","error":' .. error .. ',"result":null,"usage":null,"length":'
    .. length .. ',"truncated":false}')
  set('state', state)
  set('code', code)
  set('lease', 0)
  set('ended', NOW)
end

-- In a new epoch: the task waits, and nothing of what was before counts any more.
local function wait_anew(owner, creation)
  set('state', 'queued')
  set('cancel', 0)
  set('creation', creation)
  set('owner', owner)
  set('created', NOW)
  set('started', 0)
  set('lease', 0)
  set('length', '{}')
  set('code', '')
end

-- A task that isn't known, or not any more, waits for its first attempt.
local function introduce(owner, creation)
  first_epoch()
  wait_anew(owner, creation)
  set('attempt', 0)
  set('token', '')
  set('batch', 0)
  set('restore', '')
  emit_state()
end

-- The attempt is over and the task isn't: somebody will begin it again. What was written stays to be seen until
-- then, and the token, which tells that there is something to reset. A cancelled task waits for nobody.
local function requeue()
  if task.cancel == 1 then return emit_end('cancelled', '', '') end
  set('state', 'queued')
  set('started', 0)
  set('lease', 0)
  emit_state()
end

-- A new attempt takes over: its token fences all older ones. The last sixteen tokens are remembered, so
-- that a repeated call of an older attempt is not taken for a new one.
local function take_over(token, attempt, lease)
  set('attempt', attempt)
  set('token', token)
  local recent = token
  local count = 1
  for old in string.gmatch(task.tokens, '%S+') do
    if old ~= token and count < 16 then
      recent = recent .. ' ' .. old
      count = count + 1
    end
  end
  set('tokens', recent)
  set('batch', 0)
  set('lease', lease)
  set('length', '{}')
  set('code', '')
  set('restore', '')
end

-- Whether this is the worker that has the task. A queued task has none: its token is empty, or that of who gave
-- it back.
local function is_current(token) return token ~= '' and token == task.token and task.state ~= 'queued' end

-- Whether it had the task before; or whether `conclude` spoke of it before it began, when only the beginning of its
-- token was known, which is kept with a star.
local function was_superseded(token)
  for old in string.gmatch(task.tokens, '%S+') do
    local place = string.match(old, '^(.+)%*$')
    if old == token or place and place == string.sub(token, 1, #place) then return true end
  end
  return false
end

local function lease_until(lease_ms)
  if tonumber(lease_ms) == 0 then return 0 end -- 0: no lease, nobody declares this task lost
  return NOW + tonumber(lease_ms)
end

-- An attempt begins, or doesn't: the rules of `open`, which stand there. The verdict.
local function begin(token, lease, room)
  if KNOWN then
    if is_current(token) then
      if ended() then return 'ended' end
      return 'seen'
    end
    if was_superseded(token) then return 'fenced' end
    if task.cancel == 1 then
      if not ended() then
        secure_ids()
        emit_end('cancelled', '', '')
      end
      return 'ended'
    end
  end

  if not KNOWN then
    first_epoch()
    set('created', NOW)
    set('cancel', 0)
    take_over(token, 1, lease)
  elseif task.state == 'queued' and task.token == '' and not moved() then
    take_over(token, task.attempt + 1, lease)
  else
    if ended() or moved() or task.bytes > tonumber(room) then new_epoch(0) end
    take_over(token, task.attempt + 1, lease)
    emit_reset('retry')
  end
  set('state', 'running')
  set('started', NOW)
  emit_state()
  return 'applied'
end

-- Append the events in ARGV[first], ARGV[first + 1] …: kind, data, kind, data …
local function emit_all(first)
  for i = first, #ARGV, 2 do emit(ARGV[i], ARGV[i + 1]) end
end

-- Whether the events from ARGV[first] on would make the log larger than `limit` bytes. No events never do:
-- our own small ones may have filled it to the brim, and a full task must still be able to end.
local function too_large(first, limit)
  local added = 0
  for i = first + 1, #ARGV, 2 do added = added + #ARGV[i] end
  return added > 0 and task.bytes + added > tonumber(limit)
end

-- Write what changed, give both keys the same TTL, publish, and answer. Every script ends here.
local function answer(verdict)
  local changes = {}
  for name in pairs(dirty) do
    local value = task[name]
    if NUMBERS[name] then value = num(value) end
    changes[#changes + 1] = name
    changes[#changes + 1] = value
  end
  if #changes > 0 then
    redis.call('HSET', TASK, unpack(changes))
    local ttl = LIVE_TTL
    if ended() then ttl = ENDED_TTL end
    -- One moment for both: between two PEXPIREs a millisecond may pass.
    local moment = num(NOW + tonumber(ttl))
    redis.call('PEXPIREAT', TASK, moment)
    redis.call('PEXPIREAT', LOG, moment)
  end
  if #lines > 0 then
    local message = num(task.epoch) .. '-' .. num(task.seq)
    if published_bytes <= PUBLISH_LIMIT then
      message = message .. '\n' .. table.concat(lines, '\n')
    end
    watchers = redis.call('PUBLISH', CHANNEL, message)
  end
  return {verdict, num(task.epoch), num(task.seq), num(task.attempt), num(task.batch),
    num(task.cancel), task.state, task.code, num(NOW), task.owner, num(task.created), num(watchers)}
end
