-- actors: how an actor ends, or starts again.
-- @lazy
-- @include calls

-- Forget what an actor's creation needed: it will not start again.
local function drop_creation(actor, job)
  local head = head_of(actor)
  if not head then return end
  local task = redis.call('HMGET', keys.task(actor), fields.node, fields.unpinned)
  unqueue(actor, head)
  if task[1] ~= '' then redis.call('SREM', keys.node_tasks(task[1]), actor) end
  redis.call('DEL', keys.spec(actor), keys.task(actor))
  redis.call('SREM', keys.job_tasks(job), actor)
  release(pins_of(head, task[2]))
end

-- The actor is dead for good: its name is free at once, calls that wait for it fail, now or as a chore.
local function bury(actor, cause)
  local key = keys.actor(actor)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.job, fields.detached, fields.name, fields.namespace,
    fields.creator)
  if not record[1] or record[1] == words.DEAD then return end
  redis.call('HSET', key, fields.state, words.DEAD, fields.cause, cause, fields.ended, redis.call('TIME')[1])
  if record[5] and record[5] ~= '' then redis.call('HDEL', keys.actor_names, record[6] .. '/' .. record[5]) end
  if record[2] ~= '' then redis.call('SREM', keys.node_actors(record[2]), actor) end
  redis.call('SREM', keys.job_actors(record[3]), actor)
  redis.call('SREM', keys.created(record[7]), actor)
  drop_creation(actor, record[3])
  if redis.call('EXISTS', keys.parked(actor)) == 1 then redis.call('RPUSH', keys.chores, 'parked:' .. actor) end
  if record[4] == '1' then
    redis.call('RPUSH', keys.chores, 'job:' .. record[3])
    release({actor .. 'fffffffe'})
  end
  if redis.call('HGET', key, fields.refs) == '0' then redis.call('DEL', key, keys.callers(actor)) end
end

-- The only node that it may start on is not there.
local function bury_unschedulable(actor, why)
  redis.call('HSET', keys.actor(actor), fields.unschedulable, 1)
  bury(actor, 'The actor is not schedulable: ' .. why)
end

-- Its process is gone, unasked: start again while restarts are left and anybody holds it, else bury. Returns the new state.
local function restart_or_bury(actor, cause)
  local key = keys.actor(actor)
  local record = redis.call('HMGET', key, fields.max_restarts, fields.restarts, fields.refs, fields.node)
  local most, restarts = tonumber(record[1]), tonumber(record[2])
  local head = head_of(actor)
  if record[3] == '0' or not head or (most >= 0 and restarts >= most) then
    bury(actor, cause)
    return words.DEAD
  end
  if record[4] ~= '' then redis.call('SREM', keys.node_actors(record[4]), actor) end
  redis.call('HSET', key, fields.state, words.RESTARTING, fields.restarts, restarts + 1, fields.node, '', fields.worker, '')
  redis.call('HINCRBY', keys.task(actor), fields.attempt, 1)
  redis.call('SADD', keys.job_tasks(head[3]), actor)
  queue_again(actor, keys.task(actor), head)
  return words.RESTARTING
end

-- Bury an actor and have its process killed, wherever that is or is being made.
local function end_actor(actor, cause)
  local node = redis.call('HGET', keys.actor(actor), fields.node)
  local creating = redis.call('HGET', keys.task(actor), fields.node)
  bury(actor, cause)
  local host = node and node ~= '' and node or creating
  if host and host ~= '' then post(host, words.MESSAGE_KILL, actor, cause) end
end

local function removal_text(group) return 'The placement group ' .. group .. ' has been removed.' end

-- The placement group of an actor that waits is no more.
local function bury_homeless(actor, group)
  redis.call('HSET', keys.actor(actor), fields.error, 'ActorKilledWithPlacementGroup')
  bury(actor, 'The actor was never started. ' .. removal_text(group))
end
