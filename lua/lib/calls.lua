-- calls: an actor's calls go to its node at once, or are parked until the actor is alive.
-- @lazy
-- @include task_record

-- Parked calls are ordered by their place among their caller's calls: so whoever puts them back, and when, cannot disturb that order.
local function park(task, head)
  redis.call('ZADD', keys.parked(head[14]), head[15], task)
end

local function take_parked(actor, count)
  local popped, tasks = redis.call('ZPOPMIN', keys.parked(actor), count), {}
  for i = 1, #popped, 2 do tasks[#tasks + 1] = popped[i] end
  return tasks
end

-- Take a task that waits, in a queue or for its actor, out of where it waits.
local function unqueue(task, head)
  local key = keys.task(task)
  local name = redis.call('HGET', key, fields.queue) or queue_name(head[5], head[3])
  redis.call('HDEL', key, fields.unready, fields.queue)
  if head[2] == 2 then redis.call('ZREM', keys.parked(head[14]), task) else dequeue(name, task) end
end

-- What the caller of an actor that cannot answer is told.
local function actor_error(actor, class, cause)
  local record = redis.call('HMGET', keys.actor(actor), fields.class, fields.init_failed, fields.unschedulable, fields.name,
    fields.namespace, fields.error)
  local text = cause .. '\n    class_name: ' .. (record[1] or '?') .. '\n    actor_id: ' .. actor
  if record[4] and record[4] ~= '' then text = text .. '\n    name: ' .. record[4] end
  if record[5] then text = text .. '\n    namespace: ' .. record[5] end
  if record[2] == '2' then class = 'RuntimeEnvSetupError' end
  if record[3] then class = 'ActorUnschedulableError' end
  return system_error(record[6] or class, text, {actor_id = actor, actor_init_failed = record[2] == '1'})
end

-- What those are told whose task never ran, because its placement group was removed.
local function homeless_error(head)
  local text = 'The placement group corresponding to task ' .. head[1] .. ' (' .. head[4] .. ') has been removed.'
  return system_error('TaskPlacementGroupRemoved', text)
end

-- Whether a task demands resources of a placement group that was removed.
local function is_homeless(head)
  local group = group_of(head[5])
  if not group then return false end
  local state = redis.call('HGET', keys.group(group), fields.state)
  return not state or state == words.REMOVED
end

local function is_dead(actor)
  local state = redis.call('HGET', keys.actor(actor), fields.state)
  return not state or state == words.DEAD
end

-- A node that went away may have begun the call, and nothing else will tell: the actor has never lived (then nobody has begun it), or
-- lives on that very node, whose end costs the attempt.
local function is_lost_call(actor, former)
  local record = redis.call('HMGET', keys.actor(actor), fields.state, fields.node)
  return record[1] ~= words.PENDING and not (record[1] == words.ALIVE and record[2] == former)
end

local function orphan_call(head, unpinned)
  create_task(head, words.CLAIMED, nil, nil, unpinned)
  local cause = redis.call('HGET', keys.actor(head[14]), fields.cause)
  orphans[#orphans + 1] = {head, 'ActorDiedError', cause or 'The actor is dead and nothing is known of it any more.'}
end

-- The same for a task whose placement group was removed.
local function orphan_task(head, unpinned)
  create_task(head, words.CLAIMED, nil, nil, unpinned)
  orphans[#orphans + 1] = {head, nil, nil, homeless_error(head)}
end

-- As in Ray, a call that comes while its actor starts again costs one retry.
local function unavailable_call(head, unpinned)
  create_task(head, words.CLAIMED, nil, nil, unpinned)
  local text = 'The actor is unavailable: it is starting again. The call did not run; with max_task_retries it would wait.'
  orphans[#orphans + 1] = {head, 'ActorUnavailableError', text}
end

-- `former`: the node that the caller has lost. If the actor lives there the call may have begun, and goes down with it: to charge an
-- attempt now would charge it twice.
local function submit_call(head, spec, unpinned, former)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.node)
  if actor[1] == words.ALIVE then
    create_task(head, words.CLAIMED, actor[2], nil, unpinned)
    redis.call('SADD', keys.node_tasks(actor[2]), head[1])
    if actor[2] ~= former then post(actor[2], words.MESSAGE_CALL, 1, spec) end
  elseif actor[1] == words.RESTARTING and head[7] == 0 then
    unavailable_call(head, unpinned)
  else
    create_task(head, words.QUEUED, nil, nil, unpinned)
    if actor[1] == words.RESTARTING then next_attempt(keys.task(head[1]), head[7]) end
    park(head[1], head)
  end
end

local function fail_orphans()
  for _, orphan in ipairs(orphans) do
    local head = orphan[1]
    local packed = orphan[4] or actor_error(head[14], orphan[2], orphan[3])
    end_task(head[1], keys.task(head[1]), head[3], head, words.FAILED, packed)
  end
end

-- A call that must run again, or never ran: to where its actor is now.
local function return_call(task, key, head, spec, job, detail)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.node, fields.cause)
  if actor[1] == words.ALIVE then
    redis.call('HSET', key, fields.state, words.CLAIMED, fields.node, actor[2])
    redis.call('SADD', keys.node_tasks(actor[2]), task)
    post(actor[2], words.MESSAGE_CALL, tonumber(redis.call('HGET', key, fields.attempt)), spec)
  elseif actor[1] == words.PENDING or actor[1] == words.RESTARTING then
    redis.call('HSET', key, fields.state, words.QUEUED, fields.node, '')
    park(task, head)
  else
    end_task(task, key, job, head, words.FAILED, actor_error(head[14], 'ActorDiedError', actor[3] or detail))
  end
end

-- The error of a call whose actor's process died under it.
local function call_error(head, detail)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.cause)
  if actor[1] == words.RESTARTING or actor[1] == words.ALIVE then
    local text = string.gsub(detail, '^The actor is dead because', 'The actor is unavailable: it starts again, because')
    return actor_error(head[14], 'ActorUnavailableError', text)
  end
  return actor_error(head[14], 'ActorDiedError', actor[2] or detail)
end

-- The attempt of a task or call is lost with its node, whether or not it had begun: it costs one retry.
local function lose_attempt(task, key, head, spec, retries, lost)
  if tonumber(retries) ~= 0 then
    next_attempt(key, tonumber(retries))
    if head[2] == 2 then return_call(task, key, head, spec, head[3], lost) else queue_again(task, key, head) end
    return
  end
  local packed = head[2] == 2 and call_error(head, lost) or system_error('TaskLostWithNode', lost)
  end_task(task, key, head[3], head, words.FAILED, packed)
end
