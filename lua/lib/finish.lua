-- finish: what the end of one attempt does to its task.
-- @include calls
-- @include streams

local ended_specs, left_node, left_job = {}, {}, {}

-- Refs that the worker keeps beyond this attempt are registered before the argument pins drop; a dead worker keeps nothing.
local function keep_borrowed(borrower, kept)
  if #kept == 0 then return end
  local process = redis.call('HMGET', keys.process(borrower), fields.kind, fields.state)
  if not process[1] or process[2] == words.ENDED then return end
  for _, id in ipairs(kept) do
    if redis.call('SADD', keys.holds(borrower), id) == 1 and not retain(id) then
      redis.call('SREM', keys.holds(borrower), id)
    end
  end
end

-- An attempt that brought a value (or a final error) for every return.
local function complete(task, key, record, head, node, state, returns)
  local object_state = state == words.FINISHED and words.READY or words.FAILED
  local large = false
  if head[6] < 0 then
    large = redis.call('HGET', key, fields.large) == '1'
    give_up_missing(task, key)
    if returns[2] then add_error(task, key, table.remove(returns), node) end
    -- If it ever runs again then for items that were lost: it brings no others.
    redis.call('HSET', key, fields.closed, 1)
  end
  for index, returned in ipairs(returns) do
    large = large or not returned[1]
    if index > 1 then
      local id = task .. string.format('%08x', index - 1)
      if publish_if_missing(id, keys.object(id), object_state, returned, node) == '0' then dropped[#dropped + 1] = id end
    elseif record[3] == '1' then
      publish(task .. '00000000', key, state, returned, node, record[6], tonumber(record[5]))
    elseif not publish_if_missing(task .. '00000000', key, state, returned, node) then
      redis.call('HSET', key, fields.state, state)
    end
  end
  if #returns == 0 then redis.call('HSET', key, fields.state, state) end
  local pins = pins_of(head, record[8])
  if large and head[2] == 0 and state == words.FINISHED then
    -- Lineage: the spec and its arguments stay while the value could be lost with its node.
    redis.call('HSET', key, fields.lineage, #pins > 0 and table.concat(pins, ' ') or ' ')
  else
    ended_specs[#ended_specs + 1] = keys.spec(task)
    for _, id in ipairs(pins) do dropped[#dropped + 1] = id end
  end
  if record[5] == '0' then
    if head[6] ~= 0 then dropped[#dropped + 1] = task .. '00000000' else redis.call('DEL', key) end
  end
end

-- What complete needs to know of a task without arguments and with one return value: most are, and need no look at their spec.
local SIMPLE = {[2] = 0, [6] = 1, [8] = {}, [9] = {}}

local FINAL_ERRORS = {
  [words.CRASHED] = 'WorkerCrashedError', [words.CANCELLED] = 'TaskCancelledError', [words.OUT_OF_MEMORY] = 'OutOfMemoryError',
  [words.REMOVED] = 'TaskKilledWithPlacementGroup',
}

-- Whether the outcome is followed by another attempt. A task whose worker was killed for memory runs again as often as it takes, if it
-- may run again at all.
local function may_repeat(outcome, head, retries)
  if outcome == words.HANDED_BACK then return true end
  if outcome == words.OUT_OF_MEMORY and head[2] == 0 then return head[7] ~= 0 end
  return (outcome == words.RETRY or outcome == words.CRASHED or outcome == words.OUT_OF_MEMORY) and retries ~= '0'
end

-- An attempt after which the task runs again.
local function send_back(task, key, record, head, spec, node, finish)
  redis.call('SREM', keys.node_tasks(node), task)
  local is_free = finish[3] == words.OUT_OF_MEMORY and head[2] == 0
  if finish[3] ~= words.HANDED_BACK then next_attempt(key, is_free and 0 or tonumber(record[7])) end
  if head[2] == 2 then return return_call(task, key, head, spec, record[4], finish[7]) end
  queue_again(task, key, head)
  -- An actor whose last handle went while a node had its creation.
  if head[2] == 1 and redis.call('HGET', keys.actor(task), fields.refs) == '0' then redis.call('RPUSH', keys.chores, 'actor:' .. task) end
end

-- finish = {task, attempt, outcome, returns, borrower, kept, detail}; false when the attempt is not this node's (any more).
local function finish_attempt(node, finish)
  local task, outcome, returns, detail = finish[1], finish[3], finish[4], finish[7]
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.attempt, fields.job, fields.refs, fields.watched,
    fields.retries, fields.unpinned, fields.pins)
  if not inflight(record, node, finish[2]) then return false end
  local head, spec = SIMPLE, nil
  if record[9] or outcome ~= words.VALUE or #returns == 0 then head, spec = head_of(task) end
  keep_borrowed(finish[5], finish[6])
  if may_repeat(outcome, head, record[7]) then
    if head[2] == 1 or job_runs(record[4]) then -- the end of a job buries its actors
      send_back(task, key, record, head, spec, node, finish)
      return true
    end
    outcome, returns, detail = words.CANCELLED, {}, 'The job of task ' .. task .. ' (' .. head[4] .. ') has ended.'
  end
  if head[6] < 0 and outcome == words.VALUE and must_run_anew(key, record, head) then
    send_back(task, key, record, head, spec, node, finish)
    return true
  end
  left_node[#left_node + 1] = task
  left_job[record[4]] = left_job[record[4]] or {}
  table.insert(left_job[record[4]], task)
  if outcome == words.VALUE then
    complete(task, key, record, head, node, words.FINISHED, returns)
  elseif #returns > 0 then
    complete(task, key, record, head, node, words.FAILED, returns)
  else
    local state = outcome == words.CANCELLED and words.CANCELLED or words.FAILED
    if outcome == words.CANCELLED and detail == '' then detail = 'Task ' .. task .. ' (' .. head[4] .. ') was cancelled while it ran.' end
    local packed = head[2] == 2 and outcome == words.CRASHED and call_error(head, detail)
      or system_error(FINAL_ERRORS[outcome] or 'RaySystemError', detail, outcome == words.CANCELLED and {task_id = task} or nil)
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
