-- task_claim: hands a node the ready work that fits it, or remembers the node as idle.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the claiming node
-- ARGV
--   worker    text     the claiming node
--   route     text     "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   free      text     the node's free resources, and of how many CPUs: see lib/offers
--   rooms     msgpack  {queue name: tasks that busy workers would take ahead}
--   limit     int      at most so many tasks
-- RETURN
--   OK work leftover   work = {{attempt, spec, news of arguments}, ...}; leftover = demands of ready work that stays and that the node might run
--   REPEAT work
--   GAP last
--   FENCED
-- @include channel
-- @include hand_out

local refusal = open_call(channel, worker, route, number, seen)
if refusal then
  if refusal[1] == words.REPEAT then refusal[2] = hand_again(worker, refusal[2]) end
  return refusal
end

-- every check passed: first write
local work, claimed, leftover = hand_out(worker, free, rooms, math.min(limit, limits.SLICE))
send_mail()
close_with_work(channel, number, claimed)
return {words.OK, work, leftover}
