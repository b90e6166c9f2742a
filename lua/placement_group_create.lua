-- placement_group_create: writes a placement group down and asks nodes to set its bundles aside; without room it waits.
--
-- KEYS
--   channel   hash     the creating process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   id        text     the group's id
--   ready     text     an object that becomes ready with the group; the caller holds it
--   job       text     the job with which the group ends
--   record    msgpack  name, namespace, strategy, detached (1 or 0), bundles {demand, ...}
--   handle    text     packed: the value of objects that become ready with the group
-- RETURN
--   OK
--   EXISTS group       the name is taken by that group
--   JOB_ENDED
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include place

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local name, namespace, strategy, detached, bundles = record[1], record[2], record[3], record[4], record[5]
if redis.call('HGET', keys.job(job), fields.state) ~= words.RUNNING then return close_call(channel, number, {words.JOB_ENDED}) end
if name ~= '' then
  local other = redis.call('HGET', keys.group_names, namespace .. '/' .. name)
  if other then return close_call(channel, number, {words.EXISTS, other}) end
end

-- every check passed: first write
redis.call('HSET', keys.group(id), fields.state, words.PENDING, fields.name, name, fields.namespace, namespace, fields.strategy, strategy,
  fields.detached, detached, fields.job, job, fields.creator, worker, fields.bundles, cjson.encode(bundles),
  fields.places, string.sub(string.rep('- ', #bundles), 1, -2), fields.awaited, '', fields.reserving, '', fields.attempt, 0,
  fields.handle, handle, fields.started, now, fields.sequence, redis.call('INCR', keys.sequence))
redis.call('SADD', keys.groups, id)
if detached == 0 then redis.call('SADD', keys.job_groups(job), id) end
if name ~= '' then redis.call('HSET', keys.group_names, namespace .. '/' .. name, id) end
redis.call('HSET', keys.object(ready), fields.state, words.PENDING, fields.refs, 1, fields.group, id)
redis.call('SADD', keys.holds(worker), ready)
redis.call('SADD', keys.group_waiters(id), ready)
place_or_wait(id)
save_free()
send_mail()
return close_call(channel, number, {words.OK})
