-- reap: what becomes of a dead node's tasks, actors and objects.
-- @include endings

-- The attempt that ran there is over, recorded or not: it costs one retry.
local function reap_task(task, node)
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.job, fields.retries)
  redis.call('SREM', keys.node_tasks(node), task)
  if record[2] ~= node or (record[1] ~= words.CLAIMED and record[1] ~= words.RUNNING) then return end
  local head = head_of(task)
  if head[2] == 1 then
    restart_or_bury(task, 'The node that was starting the actor has died.')
  elseif record[4] ~= '0' then
    redis.call('HINCRBY', key, fields.attempt, 1)
    if tonumber(record[4]) > 0 then redis.call('HINCRBY', key, fields.retries, -1) end
    redis.call('HSET', key, fields.state, words.QUEUED, fields.node, '')
    if head[2] == 2 then
      redis.call('RPUSH', keys.parked(head[14]), task)
    else
      enqueue(queue_name(head[5], head[3]), task, queue_score(head[11], head[10], 0))
      ring_idle(head[5], 1)
    end
  else
    local class = head[2] == 2 and 'ActorDiedError' or 'WorkerCrashedError'
    end_task(task, key, record[3], head, words.FAILED,
      system_error(class, 'Task ' .. task .. ' (' .. head[4] .. ') was lost: its node has died.'))
  end
end

-- Compute a lost value again from its task's spec, while retries allow.
local function recompute(id, task, key)
  local record = redis.call('HMGET', key, fields.state, fields.retries, fields.lineage)
  if not record[3] or record[2] == '0' or not FINAL[record[1]] then return false end
  local head = head_of(task)
  redis.call('HDEL', key, fields.at, fields.size, fields.lineage)
  redis.call('HINCRBY', key, fields.attempt, 1)
  if tonumber(record[2]) > 0 then redis.call('HINCRBY', key, fields.retries, -1) end
  redis.call('SADD', keys.job_tasks(head[3]), task)
  for index = 1, head[6] - 1 do
    local other = keys.object(task .. string.format('%08x', index))
    if redis.call('EXISTS', other) == 1 then redis.call('HSET', other, fields.state, words.PENDING) end
  end
  local unready = register_dependent(head)
  if unready > 0 then
    redis.call('HSET', key, fields.state, words.WAITING, fields.unready, unready, fields.node, '')
  else
    redis.call('HSET', key, fields.state, words.QUEUED, fields.node, '')
    enqueue(queue_name(head[5], head[3]), task, queue_score(head[11], head[10], 0))
    ring_idle(head[5], 1)
  end
  return true
end

local function reap_object(id, node)
  local key = object_key(id)
  local record = redis.call('HMGET', key, fields.at, fields.watched, fields.refs)
  if not record[1] then return end
  local others = {}
  for other in string.gmatch(record[1], '%S+') do
    if other ~= node then others[#others + 1] = other end
  end
  redis.call('HSET', key, fields.at, table.concat(others, ' '))
  if #others > 0 then return end
  local task = string.sub(id, 1, 24)
  if recompute(id, task, keys.task(task)) then return end
  local packed = system_error('ObjectLostError', 'Object ' .. id .. ' is lost: the only node that had it died, and it cannot be recomputed.')
  local state = string.sub(id, 25) == '00000000' and words.FAILED or words.LOST
  redis.call('HDEL', key, fields.at, fields.size)
  redis.call('HSET', key, fields.state, state, fields.value, packed)
  wake(id, record[2], tonumber(record[3]) > 0, announcement(packed))
end
