-- expire: a reader found a lease that is over. ARGV[4] when the reader sent this, in Redis time (ms).
--
-- A Redis that was stopped and wakes up finds all leases over, and this very call perhaps in its queue before
-- the renewals. So a call that lay about for more than two seconds is not believed.
if not KNOWN then return answer('unknown') end
if task.state ~= 'running' then return answer('alive') end
if task.lease == 0 or task.lease > NOW then return answer('alive') end
if NOW - tonumber(ARGV[4]) > 2000 then return answer('late') end

secure_ids()
emit_end('failed', 'worker_lost', 'The worker stopped without finishing this task.')
return answer('applied')
