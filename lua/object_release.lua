-- object_release: a process names objects (and actors) of which no ref lives in it any more.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the releasing process
-- ARGV
--   worker    text     the releasing process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   objects   rest     ids
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include references

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

-- every check passed: first write
local doomed, holds = {}, keys.holds(worker)
for i = objects_at, #ARGV do
  if redis.call('SREM', holds, ARGV[i]) == 1 then doomed[#doomed + 1] = ARGV[i] end
end
release(doomed)
send_mail()
close_call(channel, number)
return {words.OK}
