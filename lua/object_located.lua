-- object_located: a node has made, or dropped, a copy of an object in its shared memory.
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
--   present   int      1: a copy was made, 0: it is gone
--   objects   rest     ids
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include reap

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

-- every check passed: first write
for i = objects_at, #ARGV do
  local id = ARGV[i]
  local key = object_key(id)
  local at = redis.call('HGET', key, fields.at)
  if present ~= 1 then
    redis.call('SREM', keys.node_objects(worker), id)
    lose_copy(id, worker)
  elseif not at then
    post(worker, words.MESSAGE_FREE, id)
  elseif redis.call('SADD', keys.node_objects(worker), id) == 1 then
    redis.call('HSET', key, fields.at, at .. ' ' .. worker)
  end
end
send_mail()
close_call(channel, number)
return {words.OK}
