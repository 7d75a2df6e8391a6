-- renew: the worker lives. ARGV[4] token, ARGV[5] lease (ms). Nothing visible changes, so nothing is published.
if not KNOWN then return answer('lost') end
if not is_current(ARGV[4]) then return answer('fenced') end
if ended() then return answer('ended') end
set('lease', lease_until(ARGV[5]))
return answer('applied')
