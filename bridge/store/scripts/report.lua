-- report: what a worker says over HTTP, by way of gateways that remember nothing of it: one piece of one
-- request. So this script does alone what the pump and `open`, `append`, `renew`, `close` and `restore` do
-- together for a worker that speaks to Redis itself. It opens the attempt, knows what is a repetition, adds
-- up lengths, renews the lease, and brings back a task that was declared lost.
--
-- ARGV[4] the attempt's token, or '' from a worker that names none: it has the attempt that nobody named,
-- which is opened under the token in ARGV[5] (such tokens begin with ~, and no other does).
-- ARGV[6] the request's number (1, 2, 3 …) within the attempt, or 0; then ARGV[7] is its name.
-- ARGV[8] where in the request's body this piece begins, ARGV[9] where it ends; ARGV[10] 1: the body, too.
-- ARGV[11] lease (ms) from now on, 0 for none, or '' as before.
-- ARGV[12] the most bytes of content that an attempt may write, ARGV[13] the most that a log may hold.
-- ARGV[14] 1: some of this piece's content was left out. ARGV[15] the bytes of text that it adds to each
-- field (JSON), ARGV[16] those of all its content.
-- ARGV[17] '' or the state with which the task ends; ARGV[18] the error's code or ''; ARGV[19] the end's
-- data, to which length and truncated are added. ARGV[20] … kind, data, kind, data …
--
-- A piece is applied only where the request's last one stopped. So whoever isn't sure sends the same request
-- again, through any gateway, also while the first is still under way: what is there already isn't applied
-- twice, and nothing is left out. An attempt that this Redis doesn't know begins with the beginning of its
-- first request and nothing else: after a loss it is told what is left (`lost`, `gap`) and can go on from
-- there. Who appends without knowing the text so far has to look whether this is still the same server
-- (`secure_ids`).
local token, own_token = ARGV[4], ARGV[5]
local number, name = tonumber(ARGV[6]), ARGV[7]
local from, to, whole = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1'
local most, limit = tonumber(ARGV[12]), ARGV[13]
local added = tonumber(ARGV[16])
local state = ARGV[17]
local FIRST = 20
local REMEMBERED = 32 -- requests with a name; of those with a number only the last is needed
local MAX_FIELDS = 100

-- What is remembered of the attempt beside the other facts: one field of the hash, `reports`, with words:
-- token, lease, bytes of content, whether some was left out, whether it wrote the end, and then the latest
-- requests, newest first: `name` of a whole one, `name=part` of one that has come as far as that.
local memory = {lease = 0, used = 0, truncated = 0, closed = 0, requests = {}}

local function remember()
  local words = {task.token, num(memory.lease), num(memory.used), memory.truncated, memory.closed}
  for i = 1, math.min(#memory.requests, REMEMBERED) do
    local one = memory.requests[i]
    words[#words + 1] = one.part and one.name .. '=' .. num(one.part) or one.name
  end
  set('reports', table.concat(words, ' '))
end

local function recall()
  local words = {}
  for word in string.gmatch(redis.call('HGET', TASK, 'reports') or '', '%S+') do words[#words + 1] = word end
  if words[1] ~= task.token then return end -- it is of another attempt
  memory.lease, memory.used = tonumber(words[2]), tonumber(words[3])
  memory.truncated, memory.closed = tonumber(words[4]), tonumber(words[5])
  for i = 6, #words do
    local known, part = string.match(words[i], '^(.-)=(%d+)$')
    memory.requests[i - 5] = {name = known or words[i], part = tonumber(part)}
  end
end

-- How the gateway finds this request among those remembered.
local KEY = number > 0 and '#' .. num(number) or name

-- How far this request has come; true when it is done.
local function progress()
  if number > 0 and number <= task.batch then return true end
  for _, one in ipairs(memory.requests) do
    if one.name == KEY then return one.part or true end
  end
  return 0
end

-- This request has come as far as that, or is whole (no part).
local function advance(part)
  local requests = {}
  if part or number == 0 then requests[1] = {name = KEY, part = part} end
  for _, one in ipairs(memory.requests) do
    if one.name ~= KEY then requests[#requests + 1] = one end
  end
  memory.requests = requests
  if not part and number > 0 then set('batch', number) end
end

-- A sign of life.
local function renew()
  if ARGV[11] ~= '' then memory.lease = tonumber(ARGV[11]) end
  set('lease', lease_until(memory.lease))
  remember()
end

-- Beside what all scripts answer: how far this request has come (-1: it is whole), how many bytes of content
-- there is room for (-1: for nothing), whether some was left out, and the lease.
local function reply(verdict, room, ended_so)
  local part = progress()
  if part == true or ended_so then part = -1 end
  local said = answer(verdict)
  for _, number in ipairs({part, room or 0, memory.truncated, memory.lease}) do said[#said + 1] = num(number) end
  return said
end

-- This attempt has nothing here.
local function refuse(verdict)
  task.batch = 0
  return reply(verdict)
end

local function has_the_task()
  if token ~= '' then return is_current(token) end
  return string.sub(task.token, 1, 1) == '~'
end

local fresh = not (KNOWN and has_the_task())
if fresh then
  if KNOWN and token == '' and task.state ~= 'queued' then return refuse(ended() and 'ended' or 'taken') end
  if KNOWN and was_superseded(token) then return refuse('fenced') end
  if KNOWN and task.cancel == 1 and ended() then return refuse('ended') end
  if number > 1 or from > 0 then return refuse('lost') end
  local verdict = begin(token ~= '' and token or own_token, 0, most)
  if verdict ~= 'applied' then return refuse(verdict) end
else
  recall()
end
if not ended() then renew() end

-- What this request is to the attempt.
local part = progress()
if number > task.batch + 1 then return reply('gap') end
if part == true or from < part then return reply('seen') end
if from > part then return reply('lost') end
local returned = task.code == 'worker_lost'
if ended() and not returned then
  if state ~= '' and memory.closed == 1 then return reply('seen', 0, true) end
  return reply('ended')
end

-- What there is room for.
local lengths = cjson.decode(task.length ~= '' and task.length or '{}')
for field, size in pairs(cjson.decode(ARGV[15])) do lengths[field] = (lengths[field] or 0) + size end
local fields = 0
for _ in pairs(lengths) do fields = fields + 1 end
if too_large(FIRST, limit) then return reply('full', -1) end
if added > 0 and memory.truncated == 1 then return reply('full', 0) end
if memory.used + added > most then return reply('full', math.max(most - memory.used, 0)) end
if fields > MAX_FIELDS then return reply('crowded') end

if returned then
  rewrite('worker_returned', 'end')
  set('state', 'running')
  set('code', '')
elseif not fresh and (#ARGV >= FIRST or state ~= '') then
  secure_ids()
end
emit_all(FIRST)
if fields > 0 then set('length', cjson.encode(lengths)) end
memory.used = memory.used + added
if ARGV[14] == '1' then memory.truncated = 1 end
if whole then advance() else advance(to) end
renew()
if state ~= '' then
  emit('end', string.sub(ARGV[19], 1, -2) .. ',"length":' .. task.length .. ',"truncated":'
    .. tostring(memory.truncated == 1) .. '}')
  set('state', state)
  set('code', ARGV[18])
  set('lease', 0)
  set('ended', NOW)
  memory.closed = 1
  remember()
end
return reply('applied')
