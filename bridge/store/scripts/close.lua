-- close: the worker's last batch and the end, in one step, so that an end can never overtake its text.
-- ARGV[4] token, ARGV[5] batch number, ARGV[6] length of each field (JSON), ARGV[7] the most bytes that a
-- log may hold, ARGV[8] state, ARGV[9] error code or '', ARGV[10] the end's data, ARGV[11] … kind, data …
--
-- The first end wins. Repeated by the same worker it gets the same answer; a superseded worker is refused.
-- With the state "queued" only the attempt ends: the task goes back to wait for the next one, without an `end`.
local token, batch = ARGV[4], tonumber(ARGV[5])

if not KNOWN then return answer('lost') end
if task.state == 'queued' and token == task.token and batch == task.batch then return answer('seen') end
if not is_current(token) then return answer('fenced') end
if ended() then
  if batch == task.batch then return answer('seen') end
  return answer('ended')
end
if batch <= task.batch then return answer('seen') end
if batch > task.batch + 1 then return answer('gap') end
if too_large(11, ARGV[7]) then return answer('full') end

emit_all(11)
set('batch', batch)
set('length', ARGV[6])
if ARGV[8] == 'queued' then
  requeue()
  return answer('applied')
end
emit('end', ARGV[10])
set('state', ARGV[8])
set('code', ARGV[9])
set('lease', 0)
set('ended', NOW)
return answer('applied')
