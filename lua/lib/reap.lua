-- reap: what becomes of a dead node's tasks, actors and objects.
-- @lazy
-- @include endings
-- @include calls

-- The attempt that ran there is over, recorded or not: it costs one retry.
local function reap_task(task, node)
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.job, fields.retries)
  redis.call('SREM', keys.node_tasks(node), task)
  if record[2] ~= node or (record[1] ~= words.CLAIMED and record[1] ~= words.RUNNING) then return end
  local head, spec = head_of(task)
  local lost = 'Task ' .. task .. ' (' .. head[4] .. ') was lost: its node has died.'
  if head[2] == 1 then
    restart_or_bury(task, 'The node that was starting the actor has died.')
  elseif not job_runs(record[3]) then
    end_task(task, key, record[3], head, words.CANCELLED, system_error('TaskCancelledError', lost))
  else
    lose_attempt(task, key, head, spec, record[4], lost)
  end
end

-- Compute a lost value again from its task's spec, while retries allow. True when somebody computes it now.
local function recompute(key, task)
  local task_key = keys.task(task)
  local record = redis.call('HMGET', task_key, fields.state, fields.retries, fields.lineage, fields.job, fields.items)
  if not record[1] then return false end
  local runs = not FINAL[record[1]]
  if not runs and (record[1] ~= words.FINISHED or not record[3] or record[2] == '0' or not job_runs(record[4])) then return false end
  if key ~= task_key then
    redis.call('HSET', key, fields.state, words.PENDING)
    if record[5] then redis.call('HINCRBY', task_key, fields.missing, 1) end
  end
  if runs then return true end -- for a sibling that was lost before
  redis.call('HDEL', task_key, fields.lineage)
  redis.call('SADD', keys.job_tasks(record[4]), task)
  next_attempt(task_key, tonumber(record[2]))
  queue_again(task, task_key, head_of(task))
  return true
end

local function announce_loss(id, key, watched, refs)
  local text = 'Object ' .. id .. ' is lost: the only node that had it has died or dropped it, and it cannot be computed again.'
  local packed = system_error('ObjectLostError', text)
  local state = string.sub(id, 25) == '00000000' and words.FAILED or words.LOST
  redis.call('HSET', key, fields.state, state, fields.value, packed)
  wake(id, watched, refs > 0, announcement(packed))
end

-- A node's copy of an object is gone. When it was the last one the object is computed again, or lost.
local function lose_copy(id, node)
  local key = object_key(id)
  local record = redis.call('HMGET', key, fields.at, fields.watched, fields.refs, fields.contains)
  if not record[1] then return end
  local others, inner = {}, {}
  for other in string.gmatch(record[1], '%S+') do
    if other ~= node then others[#others + 1] = other end
  end
  if #others > 0 then
    redis.call('HSET', key, fields.at, table.concat(others, ' '))
    for _, other in ipairs(others) do post(other, words.MESSAGE_KEEP, id) end
    return
  end
  redis.call('HDEL', key, fields.at, fields.size, fields.contains)
  if is_put(id) or not recompute(key, string.sub(id, 1, 24)) then announce_loss(id, key, record[2], tonumber(record[3])) end
  -- Last, because in a circle of references it may free this very object.
  for each in string.gmatch(record[4] or '', '%S+') do inner[#inner + 1] = each end
  release(inner)
end
