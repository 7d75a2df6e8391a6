-- open: a worker begins an attempt. ARGV[4] its token, ARGV[5] lease (ms), ARGV[6] the most bytes that a log
-- may already hold for an attempt that joins it, ARGV[7] 1 if it must not take over from anybody.
--
-- Earlier attempts' text in the same epoch is void, but it counts against what the log may hold. Where there
-- is more of it than one attempt may write, the new one begins a new epoch, so that it has room for its own.
-- The newest attempt fences all older ones. A queued task that has a token was had before, by an attempt that gave
-- it back; its text is void now. With the cancel flag set there is no new attempt: the task is,
-- or stays, ended as cancelled.
if KNOWN and ARGV[7] == '1' and not is_current(ARGV[4]) then return answer('fenced') end
return answer(begin(ARGV[4], lease_until(ARGV[5]), ARGV[6]))
