-- create: the app announces a task. ARGV[4] owner, ARGV[5] a random name of this call, ARGV[6] its age (ms).
--
-- A call that is repeated (same name) changes nothing. A call that was made while the task waited or ran
-- means that run, and must not wipe it when it comes, or comes again, after the end: on an ended task it
-- counts only if it was made after the end. That is a matter of time and not of names, because several calls
-- may have found the task running. But the time is only as exact as the way here is short, so the newest
-- name is remembered, too: it is the one whose answer may just have got lost. Then the last worker is
-- superseded: should it still be alive, its text must not land in the new run.
local owner, creation, asked_at = ARGV[4], ARGV[5], NOW - tonumber(ARGV[6])

if not KNOWN then
  introduce(owner, creation)
  return answer('applied')
end
if ended() and creation ~= task.creation and asked_at >= task.ended then
  local known_owner = task.owner
  new_epoch(0)
  wait_anew(owner, creation)
  if owner == '' then set('owner', known_owner) end
  set('token', '')
  emit_reset('retry')
  emit_state()
  return answer('applied')
end
if task.owner == '' and owner ~= '' then set('owner', owner) end
if not ended() and task.creation ~= creation then set('creation', creation) end
return answer('seen')
