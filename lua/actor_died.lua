-- actor_died: the process of an actor is gone, or its constructor failed: restart it or bury it.
-- The node reports the calls it had by task_finish, behind this call.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the node
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   actor     text     its id
--   attempt   int      the attempt of the creation task
--   final     int      1: it was asked to end, 2: its constructor raised, 3: its environment could not be set up, 4: its placement
--                      group was removed; then it is never restarted
--   cause     text     a sentence for those who call it
-- RETURN
--   OK state           RESTARTING or DEAD
--   STALE              it lives elsewhere, or was buried before
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include actors

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local creation = redis.call('HMGET', keys.task(actor), fields.node, fields.attempt)
if creation[1] ~= worker or tonumber(creation[2]) ~= attempt then
  return close_call(channel, number, {words.STALE})
end

-- every check passed: first write
redis.call('SREM', keys.node_tasks(worker), actor)
redis.call('SREM', keys.node_actors(worker), actor)
local state = words.DEAD
if final == 4 then
  redis.call('HSET', keys.actor(actor), fields.error, 'ActorKilledWithPlacementGroup')
elseif final > 1 then
  redis.call('HSET', keys.actor(actor), fields.init_failed, final - 1)
end
if final > 0 then bury(actor, cause) else state = restart_or_bury(actor, cause) end
send_mail()
close_call(channel, number)
return {words.OK, state}
