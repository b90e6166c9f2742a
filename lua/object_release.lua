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
local ids, named, doomed, holds = {}, {}, {}, keys.holds(worker)
for i = objects_at, #ARGV do
  if not named[ARGV[i]] then
    named[ARGV[i]] = true
    ids[#ids + 1] = ARGV[i]
  end
end
for first = 1, #ids, limits.SLICE do
  local last = math.min(first + limits.SLICE - 1, #ids)
  for offset, held in ipairs(redis.call('SMISMEMBER', holds, unpack(ids, first, last))) do
    if held == 1 then doomed[#doomed + 1] = ids[first + offset - 1] end
  end
  redis.call('SREM', holds, unpack(ids, first, last))
end
release(doomed)
send_mail()
close_call(channel, number)
return {words.OK}
