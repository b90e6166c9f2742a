-- finish: what the end of one attempt does to its task.
-- @include task_record

local ended_specs, left_node, left_job, dropped = {}, {}, {}, {}

local function inflight(record, node, attempt)
  return record[2] == node and tonumber(record[3]) == attempt
    and (record[1] == words.CLAIMED or record[1] == words.RUNNING)
end

-- Publish one return value; `watched`, `refs` are the object's own.
local function publish(id, key, state, returned, node, watched, refs)
  local inline, size, contains = returned[1], returned[2], returned[3]
  local value_at = nil
  if inline then
    redis.call('HSET', key, fields.state, state, fields.value, inline)
  else
    value_at = node
    redis.call('HSET', key, fields.state, state, fields.size, size, fields.at, node)
    redis.call('SADD', keys.node_objects(node), id)
  end
  if #contains > 0 then
    redis.call('HSET', key, fields.contains, table.concat(contains, ' '))
    for _, inner in ipairs(contains) do retain(inner) end
  end
  wake(id, watched, refs > 0, announcement(inline, size, value_at))
end

-- Refs that the worker keeps beyond this attempt are registered before the argument pins drop.
local function keep_borrowed(borrower, kept)
  for _, id in ipairs(kept) do
    if redis.call('SADD', keys.holds(borrower), id) == 1 and not retain(id) then
      redis.call('SREM', keys.holds(borrower), id)
    end
  end
end

-- An actor's call that must run again, or never ran: in front of what waits for the actor, so its caller's order holds.
local function return_call(task, key, head, spec, job, detail)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.node, fields.cause)
  if actor[1] == words.ALIVE then
    redis.call('HSET', key, fields.state, words.CLAIMED, fields.node, actor[2])
    redis.call('SADD', keys.node_tasks(actor[2]), task)
    post(actor[2], words.MESSAGE_CALL, tonumber(redis.call('HGET', key, fields.attempt)), spec)
  elseif actor[1] == words.PENDING or actor[1] == words.RESTARTING then
    redis.call('HSET', key, fields.state, words.QUEUED, fields.node, '')
    redis.call('LPUSH', keys.parked(head[14]), task)
  else
    end_task(task, key, job, head, words.FAILED, system_error('ActorDiedError', actor[3] or detail))
  end
end

-- The error of a call whose actor's process died under it.
local function call_error(head, detail)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.cause)
  if actor[1] == words.RESTARTING or actor[1] == words.ALIVE then return system_error('ActorUnavailableError', detail) end
  return system_error('ActorDiedError', actor[2] or detail)
end

local function requeue(task, head, sequence)
  redis.call('HSET', keys.task(task), fields.state, words.QUEUED, fields.node, '')
  enqueue(queue_name(head[5], head[3]), task, queue_score(head[11], head[10], sequence))
  ring_idle(head[5], 1)
end

-- An attempt that brought a value (or a final error) for every return.
local function complete(task, key, record, head, node, state, returns)
  local refs = tonumber(record[5])
  local object_state = state == words.FINISHED and words.READY or words.FAILED
  local large = false
  for index, returned in ipairs(returns) do
    if not returned[1] then large = true end
    if index == 1 then
      publish(task .. '00000000', key, state, returned, node, record[6], refs)
    else
      local id = task .. string.format('%08x', index - 1)
      local object = redis.call('HMGET', keys.object(id), fields.refs, fields.watched)
      if object[1] then
        publish(id, keys.object(id), object_state, returned, node, object[2], tonumber(object[1]))
        if tonumber(object[1]) == 0 then dropped[#dropped + 1] = id end
      elseif not returned[1] then
        post(node, words.MESSAGE_FREE, id)
      end
    end
  end
  if #returns == 0 then redis.call('HSET', key, fields.state, state) end
  local pins = {}
  for _, id in ipairs(head[8]) do pins[#pins + 1] = id end
  for _, id in ipairs(head[9]) do pins[#pins + 1] = id end
  if large and head[2] == 0 then
    -- Lineage: the spec and its arguments stay while the value could be lost with its node.
    redis.call('HSET', key, fields.lineage, #pins > 0 and table.concat(pins, ' ') or ' ')
  else
    ended_specs[#ended_specs + 1] = keys.spec(task)
    for _, id in ipairs(pins) do dropped[#dropped + 1] = id end
  end
  if head[2] == 2 then dropped[#dropped + 1] = head[14] .. 'fffffffe' end
  if refs == 0 then
    if head[6] > 0 then dropped[#dropped + 1] = task .. '00000000' else redis.call('DEL', key) end
  end
end

local FINAL_ERRORS = {[words.CRASHED] = 'WorkerCrashedError', [words.CANCELLED] = 'TaskCancelledError'}

-- finish = {task, attempt, outcome, returns, borrower, kept, detail}; false when the attempt is not this node's (any more).
local function finish_attempt(node, finish)
  local task, attempt, outcome = finish[1], finish[2], finish[3]
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.attempt, fields.job, fields.refs, fields.watched,
    fields.retries)
  if not inflight(record, node, attempt) then return false end
  local head, spec = head_of(task)
  local retries = tonumber(record[7])
  left_node[#left_node + 1] = task
  keep_borrowed(finish[5], finish[6])
  local again = (outcome == words.RETRY or outcome == words.CRASHED) and retries ~= 0
  if outcome == words.HANDED_BACK or again then
    if again then
      redis.call('HINCRBY', key, fields.attempt, 1)
      if retries > 0 then redis.call('HINCRBY', key, fields.retries, -1) end
    end
    if head[2] == 2 then
      return_call(task, key, head, spec, record[4], finish[7])
    else
      requeue(task, head, 0)
    end
    return true
  end
  left_job[record[4]] = left_job[record[4]] or {}
  table.insert(left_job[record[4]], task)
  if outcome == words.VALUE then
    complete(task, key, record, head, node, words.FINISHED, finish[4])
  elseif #finish[4] > 0 then
    complete(task, key, record, head, node, words.FAILED, finish[4])
  else
    local state = outcome == words.CANCELLED and words.CANCELLED or words.FAILED
    local packed = head[2] == 2 and outcome == words.CRASHED and call_error(head, finish[7])
      or system_error(FINAL_ERRORS[outcome] or 'RaySystemError', finish[7])
    end_task(task, key, record[4], head, state, packed)
  end
  return true
end

local function finish_all(node)
  for first = 1, #ended_specs, limits.SLICE do
    redis.call('DEL', unpack(ended_specs, first, math.min(first + limits.SLICE - 1, #ended_specs)))
  end
  add_all('SREM', keys.node_tasks(node), left_node)
  for job, tasks in pairs(left_job) do add_all('SREM', keys.job_tasks(job), tasks) end
  release(dropped)
end
