-- object_wait: asks to be told of objects: those that are ready now at once, the others when they are.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the asking process
-- ARGV
--   worker    text     the asking process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   objects   rest     ids
-- RETURN
--   OK                 the news come through the inbox
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include settle

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

-- every check passed: first write
for i = objects_at, #ARGV do
  local id = ARGV[i]
  local key = object_key(id)
  local object = redis.call('HMGET', key, fields.state, fields.refs, fields.value, fields.size, fields.at, fields.items)
  if object[6] then post(worker, words.MESSAGE_ITEMS, id, object[6]) end
  if not object[2] then
    post(worker, words.MESSAGE_VALUE, id, system_error('ObjectLostError',
      'Object ' .. id .. ' is not in the cluster: it was freed, or the process that made it died before it was recorded.'))
  elseif object[3] or object[5] then
    local kind, data = announcement(object[3], object[4], object[5])
    post(worker, kind, id, data)
  else
    redis.call('SADD', keys.watchers(id), worker)
    redis.call('HSET', key, fields.watched, 1)
  end
end
send_mail()
close_call(channel, number)
return {words.OK}
