-- create: the app announces a task. ARGV[4] owner, ARGV[5] a random name of this call, ARGV[6] its age (ms).
--
-- A call that is repeated (same name) changes nothing. A call that was held up while the task already ran
-- must not wipe that run: on an ended task it counts only if it was made after the run began. Then the last
-- worker is superseded: should it still be alive, its text must not land in the new run.
local owner, creation, asked_at = ARGV[4], ARGV[5], NOW - tonumber(ARGV[6])

local function queue()
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

if not KNOWN then
  new_epoch(0)
  queue()
  set('attempt', 0)
  set('token', '')
  set('tokens', '')
  set('batch', 0)
  set('restore', '')
  emit_state()
  return answer('applied')
end
if ended() and creation ~= task.creation and asked_at > task.started then
  local known_owner = task.owner
  new_epoch(0)
  queue()
  if owner == '' then set('owner', known_owner) end
  set('token', '')
  emit_reset('retry')
  emit_state()
  return answer('applied')
end
if task.owner == '' and owner ~= '' then set('owner', owner) end
if task.creation == '' then set('creation', creation) end
return answer('seen')
