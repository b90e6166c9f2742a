-- placement_group_granted: a node's answers to what it was asked to set aside for placement groups.
--
-- With the last grant a group is complete; after a refusal the others release, and it is placed elsewhere or waits.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the node
-- ARGV
--   worker    text     the node
--   route     text     "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   free      text     what is free there, after these answers
--   answers   rest     "group attempt 1": granted, "group attempt 0": refused
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include groups

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end
local answers = {}
for i = answers_at, #ARGV do
  local id, attempt, granted = string.match(ARGV[i], '^(%x+) (%d+) ([01])$')
  if not id then return redis.error_reply('ERR placement_group_granted takes "group attempt 1" or 0, not ' .. ARGV[i] .. '.') end
  answers[#answers + 1] = {id, tonumber(attempt), granted == '1'}
end

-- every check passed: first write
local refused = false
for _, answer in ipairs(answers) do
  answer_attempt(answer[1], worker, answer[2], answer[3], now)
  refused = refused or not answer[3]
end
save_free()
-- Who refuses knows better what is free there than Redis does.
if refused then told_free(worker, free) end
send_mail()
close_call(channel, number)
return {words.OK}
