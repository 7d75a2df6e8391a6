-- cancel: somebody asks the task to stop. The flag belongs to the task, not to the attempt: a later attempt
-- finds it. A queued task ends at once; a running one is told by its next answer from Redis.
if not KNOWN then return answer('unknown') end
if ended() then return answer('ended') end
if task.cancel == 1 then return answer('seen') end

secure_ids()
set('cancel', 1)
emit_state()
if task.state == 'queued' then emit_end('cancelled', '', '') end
return answer('applied')
