-- placement_group_ready: makes an object that becomes ready when a placement group is complete, at once if it is.
--
-- KEYS
--   channel   hash     the asking process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   id        text     the group's id
--   ready     text     the object's id; the caller holds it
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include place

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local group = redis.call('HMGET', keys.group(id), fields.state, fields.handle)

-- every check passed: first write
redis.call('HSET', keys.object(ready), fields.state, words.PENDING, fields.refs, 1, fields.group, id)
redis.call('SADD', keys.holds(worker), ready)
if group[1] == words.PENDING or group[1] == words.RESCHEDULING then
  redis.call('SADD', keys.group_waiters(id), ready)
else
  local packed = group[1] == words.CREATED and group[2]
    or system_error('TaskPlacementGroupRemoved', 'The placement group ' .. id .. ' has been removed.')
  redis.call('HSET', keys.object(ready), fields.state, group[1] == words.CREATED and words.READY or words.FAILED, fields.value, packed)
  wake(ready, nil, true, announcement(packed))
end
send_mail()
close_call(channel, number)
return {words.OK}
