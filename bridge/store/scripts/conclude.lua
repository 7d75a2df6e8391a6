-- conclude: whoever looks after workers says how an attempt ended that can't say so itself, because its worker was
-- killed, or never got to begin. ARGV[4] what its token begins with, or '' where it never began, ARGV[5] failed,
-- cancelled or queued (it will be begun again), ARGV[6] error code or '', ARGV[7] message; ARGV[8] how long ago that
-- was known (ms).
--
-- This may come late. It means that one attempt, and none that has begun since; or the task while it waits, but only
-- as it waited then. It may also come before the app's announcement: then the task is known from now on.
local place, state = ARGV[4], ARGV[5]

-- Whether the task was ever had there: then it is in its order among the attempts, else it came after the last one.
local function was_had()
  for old in string.gmatch(task.tokens, '%S+') do
    if string.sub(old, 1, #place) == place then return true end
  end
  return false
end
local never_begun = not KNOWN or task.token == '' or not was_had()

if ended() and KNOWN then return answer('ended') end
if not KNOWN then
  if state == 'queued' then return answer('unknown') end
  introduce('', '')
else
  local meant = place ~= '' and string.sub(task.token, 1, #place) == place
  if task.state == 'queued' and (place == '' or never_begun) then
    meant = task.created <= NOW - tonumber(ARGV[8])
  end
  if not meant then return answer('fenced') end
  if task.state == state then return answer('seen') end
  secure_ids()
end
-- Should it have sent its `open` with its last breath, that comes too late.
if never_begun and place ~= '' then set('tokens', place .. '* ' .. task.tokens) end

if state == 'queued' then requeue() else emit_end(state, ARGV[6], ARGV[7]) end
return answer('applied')
