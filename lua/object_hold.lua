-- object_hold: a process that got refs out of a value registers that it holds them (once per process and object).
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the holding process
-- ARGV
--   worker    text     the holding process
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
for i = objects_at, #ARGV do
  local id = ARGV[i]
  if redis.call('SADD', keys.holds(worker), id) == 1 and not retain(id) then
    redis.call('SREM', keys.holds(worker), id)
  end
end
close_call(channel, number)
return {words.OK}
