-- append: a worker's next batch of events. ARGV[4] token, ARGV[5] batch number (1, 2, 3 …), ARGV[6] the
-- byte length of each field after this batch (JSON), ARGV[7] the most bytes that a log may hold,
-- ARGV[8] … kind, data, kind, data …
--
-- The number makes a repeated call harmless and a lost one visible: the next is applied, one already seen
-- is recognised, one that skips ahead is refused.
local token, batch = ARGV[4], tonumber(ARGV[5])

if not KNOWN then return answer('lost') end
if not is_current(token) then return answer('fenced') end
if ended() then return answer('ended') end
if batch <= task.batch then return answer('seen') end
if batch > task.batch + 1 then return answer('gap') end
if too_large(8, ARGV[7]) then return answer('full') end

emit_all(8)
set('batch', batch)
set('length', ARGV[6])
return answer('applied')
