-- node_reap: takes apart, a slice a call, a node whose lease is over (or which leaves): anybody may call it.
--
-- FLAGS allow-oom
-- KEYS
--   node      hash     the node's record
-- ARGV
--   id        text     the node's id
--   now       ms       0 = the server's clock
--   leaving   int      1: the node says so itself, its lease does not matter
-- RETURN
--   DONE
--   MORE
--   NOT_YET            its lease is not over
--   GRACE              Redis was away: nobody is declared dead yet
-- @include reap
-- @include grace
-- @include groups

local lease = redis.call('ZSCORE', keys.leases, 'node:' .. id)
local state = redis.call('HGET', node, fields.state)
if not state then return {words.DONE} end
if leaving ~= 1 and state ~= words.DEAD then
  if lease and tonumber(lease) > now then return {words.NOT_YET} end
  if now < grace_until(now) then return {words.GRACE} end
end

-- every check passed: first write
if state ~= words.DEAD then
  redis.call('HSET', node, fields.state, words.DEAD, fields.ended, now)
  redis.call('SREM', keys.nodes, id)
  redis.call('LPUSH', keys.dead_nodes, id)
  redis.call('LTRIM', keys.dead_nodes, 0, limits.DEAD_NODES - 1)
  redis.call('HDEL', keys.idle, id)
  redis.call('HDEL', keys.process(id), fields.route)
  -- Until the last slice is done it stays in the list of the expired, so that somebody goes on.
  redis.call('ZADD', keys.leases, 'XX', 0, 'node:' .. id)
  post(id, words.MESSAGE_LOST)
  if redis.call('EXISTS', keys.node_queues(id)) == 1 then redis.call('RPUSH', keys.chores, 'node:' .. id) end
end
local slice = 50
local groups = redis.call('SRANDMEMBER', keys.node_groups(id), slice)
for _, group in ipairs(groups) do lose_bundles(group, id) end
local actors = redis.call('SRANDMEMBER', keys.node_actors(id), slice)
for _, actor in ipairs(actors) do restart_or_bury(actor, 'The actor is dead because its node has died.') end
for _, actor in ipairs(actors) do redis.call('SREM', keys.node_actors(id), actor) end
local tasks = #actors < slice and redis.call('SRANDMEMBER', keys.node_tasks(id), slice) or actors
if #actors < slice then
  for _, task in ipairs(tasks) do reap_task(task, id) end
end
local objects = #tasks < slice and redis.call('SPOP', keys.node_objects(id), slice) or tasks
if #tasks < slice then
  for _, object in ipairs(objects) do lose_copy(object, id) end
end
if #objects < slice then
  for _, process in ipairs(redis.call('SMEMBERS', keys.node_processes(id))) do
    if redis.call('HGET', keys.process(process), fields.kind) == 'driver' then
      -- A driver outlives its node: it has one lease to come by itself.
      redis.call('HSET', keys.process(process), fields.route, 'direct', fields.former, id)
      redis.call('ZADD', keys.leases, now + limits.LEASE_MS, 'driver:' .. process)
      redis.call('SREM', keys.node_processes(id), process)
    else
      end_process(process, leaving ~= 1)
    end
  end
end
save_free()
send_mail()
if #objects == slice or #groups == slice then return {words.MORE} end
redis.call('ZREM', keys.leases, 'node:' .. id)
redis.call('DEL', keys.process(id), keys.inbox(id), keys.holds(id), keys.node_processes(id))
redis.call('EXPIRE', node, limits.TOMBSTONE_S)
return {words.DONE}
