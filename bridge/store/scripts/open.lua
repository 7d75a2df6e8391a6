-- open: a worker begins an attempt. ARGV[4] its token, ARGV[5] lease (ms), ARGV[6] the most bytes that a log
-- may already hold for an attempt that joins it, ARGV[7] 1 if it must not take over from anybody.
--
-- Earlier attempts' text in the same epoch is void, but it counts against what the log may hold. Where there
-- is more of it than one attempt may write, the new one begins a new epoch, so that it has room for its own.
-- The newest attempt fences all older ones. A queued task that has a token was had before, by an attempt that gave
-- it back; its text is void now. With the cancel flag set there is no new attempt: the task is,
-- or stays, ended as cancelled.
local token, lease = ARGV[4], lease_until(ARGV[5])

if KNOWN then
  if ARGV[7] == '1' and not is_current(token) then return answer('fenced') end
  if is_current(token) then
    if ended() then return answer('ended') end
    return answer('seen')
  end
  if was_superseded(token) then return answer('fenced') end
  if task.cancel == 1 then
    if not ended() then
      secure_ids()
      emit_end('cancelled', '', '')
    end
    return answer('ended')
  end
end

if not KNOWN then
  new_epoch(0)
  set('created', NOW)
  set('cancel', 0)
  set('tokens', '')
  take_over(token, 1, lease)
elseif task.state == 'queued' and task.token == '' and not moved() then
  take_over(token, task.attempt + 1, lease)
else
  if ended() or moved() or task.bytes > tonumber(ARGV[6]) then new_epoch(0) end
  take_over(token, task.attempt + 1, lease)
  emit_reset('retry')
end
set('state', 'running')
set('started', NOW)
emit_state()
return answer('applied')
