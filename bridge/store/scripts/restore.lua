-- restore: the repair, after Redis lost what it had acknowledged, or a worker that was declared lost came
-- back. A new epoch holds `reset`, then all that the attempt has written, merged.
-- ARGV[4] token, ARGV[5] attempt, ARGV[6] a name of this call, ARGV[7] reason, ARGV[8] last batch number
-- contained, ARGV[9] the last epoch that the worker knows, ARGV[10] lease (ms), ARGV[11] lengths (JSON),
-- ARGV[12] cancel flag that the worker knows (0 or 1), ARGV[13] created, ARGV[14] started (ms, 0 unknown),
-- ARGV[15] the owner that the worker knows or '', ARGV[16] … kind, data …
--
-- Only the latest attempt may: the same token, or a higher number and a later start than Redis knows.
local token, attempt = ARGV[4], tonumber(ARGV[5])
local same = is_current(token)

if task.epoch > 0 and not same and (attempt <= task.attempt or task.started > tonumber(ARGV[14])) then
  return answer('fenced')
end
if KNOWN and same and ARGV[6] == task.restore then
  if ended() then return answer('ended') end
  return answer('seen')
end
if KNOWN and same and ended() and task.code ~= 'worker_lost' then return answer('ended') end

new_epoch(tonumber(ARGV[9]))
take_over(token, attempt, lease_until(ARGV[10]))
set('state', 'running')
set('batch', tonumber(ARGV[8]))
set('length', ARGV[11])
set('restore', ARGV[6])
set('cancel', math.max(task.cancel, tonumber(ARGV[12])))
if task.created == 0 then set('created', math.max(tonumber(ARGV[13]), 1)) end
if task.owner == '' then set('owner', ARGV[15]) end
set('started', tonumber(ARGV[14]))
emit_reset(ARGV[7])
emit_state()
emit_all(16)
return answer('applied')
