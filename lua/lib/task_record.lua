-- task_record: the hash of a task, which is also the record of its first return value.
-- @include settle

-- Calls of actors that cannot answer, and tasks of groups that are gone: they fail as soon as they are written down.
local orphans = {}

-- Variadic calls in slices: unpack fails at 8,000 values.
local function add_all(command, key, members)
  for first = 1, #members, limits.SLICE do
    redis.call(command, key, unpack(members, first, math.min(first + limits.SLICE - 1, #members)))
  end
end

local function head_of(task)
  local spec = redis.call('GET', keys.spec(task))
  if not spec then return nil end
  return cmsgpack.unpack(string.sub(spec, 5, 4 + struct.unpack('<I4', spec))), spec
end

local function job_runs(job)
  return redis.call('HGET', keys.job(job), fields.state) == words.RUNNING
end

-- What a task keeps alive until it ends: its arguments, and the actor it calls; but not what was unknown when it came (`unpinned`).
local function pins_of(head, unpinned)
  local pins = {}
  for _, id in ipairs(head[8]) do pins[#pins + 1] = id end
  for _, id in ipairs(head[9]) do pins[#pins + 1] = id end
  if head[2] == 2 then pins[#pins + 1] = head[14] .. 'fffffffe' end
  if not unpinned then return pins end
  local never, kept = {}, {}
  for id in string.gmatch(unpinned, '%S+') do never[id] = true end
  for _, id in ipairs(pins) do
    if not never[id] then kept[#kept + 1] = id end
  end
  return kept
end

-- Returns, as text, what could not be kept alive: to let go of it later would take away somebody else's reference.
local function pin(head)
  local unknown = {}
  for _, id in ipairs(pins_of(head)) do
    if not retain(id) then unknown[#unknown + 1] = id end
  end
  if #unknown > 0 then return table.concat(unknown, ' ') end
end

local function create_task(head, state, node, unready, unpinned)
  local key = keys.task(head[1])
  local refs = head[6] == 0 and 0 or 1
  redis.call('HSET', key, fields.state, state, fields.job, head[3], fields.name, head[4], fields.attempt, 1,
    fields.retries, head[7], fields.refs, refs, fields.node, node or '')
  if unready then redis.call('HSET', key, fields.unready, unready) end
  if unpinned then redis.call('HSET', key, fields.unpinned, unpinned) end
  if head[2] ~= 0 or head[6] ~= 1 or #head[8] + #head[9] > 0 then redis.call('HSET', key, fields.pins, 1) end
  if head[2] ~= 0 then redis.call('HSET', key, fields.kind, head[2], fields.actor, head[14]) end
  if head[6] > 1 then redis.call('HSET', key, fields.returns, head[6], fields.alive, head[6]) end
  if head[6] < 0 then redis.call('HSET', key, fields.returns, head[6], fields.alive, 1) end
end

-- The submitting process holds every return value; values after the first have records of their own.
local function hold_returns(head, held)
  if head[6] == 0 then return end
  held[#held + 1] = head[1] .. '00000000'
  for index = 1, head[6] - 1 do
    local id = head[1] .. string.format('%08x', index)
    redis.call('HSET', keys.object(id), fields.state, words.PENDING, fields.refs, 1)
    held[#held + 1] = id
  end
end

-- A dead node's copies do not count, even before they are taken off the record: who waits for such a value is woken when they are.
local function any_lives(nodes)
  for node in string.gmatch(nodes, '%S+') do
    if redis.call('SISMEMBER', keys.nodes, node) == 1 then return true end
  end
  return false
end

-- What nobody knows (any more) is not waited for: the task starts, and says so.
local function must_wait_for(key)
  local object = redis.call('HMGET', key, fields.state, fields.at, fields.attempt)
  if not object[1] then return false end
  if object[2] then return not any_lives(object[2]) end
  if FINAL[object[1]] then return false end
  -- A first return value may be there although its task runs again, for a sibling.
  return not (object[3] and object[3] ~= '1' and redis.call('HEXISTS', key, fields.value) == 1)
end

-- Write the task down with everything it waits for; returns how many that are.
local function register_dependent(head)
  local unready = 0
  local counted = {}
  for _, id in ipairs(head[8]) do
    if not counted[id] then
      counted[id] = true
      local key = object_key(id)
      if must_wait_for(key) then
        redis.call('RPUSH', keys.dependents(id), head[1])
        redis.call('HSET', key, fields.watched, 1)
        unready = unready + 1
      end
    end
  end
  return unready
end

-- The attempt is over without a result. The next one has another number, so what is still said of this one is stale.
local function next_attempt(key, retries)
  redis.call('HINCRBY', key, fields.attempt, 1)
  if retries > 0 then redis.call('HINCRBY', key, fields.retries, -1) end
end

-- False when an argument is not there any more (it is computed again): then the task waits for it once more.
local function still_ready(task, key, head)
  local unready = #head[8] > 0 and register_dependent(head) or 0
  if unready == 0 then return true end
  redis.call('HSET', key, fields.state, words.WAITING, fields.unready, unready, fields.node, '')
  return false
end

-- Queue a task once more, in front, if it need not wait.
local function queue_again(task, key, head)
  if not still_ready(task, key, head) then return end
  redis.call('HSET', key, fields.state, words.QUEUED, fields.node, '')
  queue_task(task, key, head, queue_score(head[11], head[10], 0))
end

-- The first return value, of a task that ends in an error. It stays what it was if only another value was being computed again.
local function fail_first(task, key, record, state, packed)
  if not record[1] or (record[4] ~= '1' and redis.call('HEXISTS', key, fields.value) + redis.call('HEXISTS', key, fields.at) > 0) then
    redis.call('HSET', key, fields.state, words.FINISHED)
    return
  end
  redis.call('HSET', key, fields.state, state, fields.value, packed)
  wake(task .. '00000000', record[2], tonumber(record[1]) > 0 or state == words.FAILED, announcement(packed))
end

-- Give every return value of a task the same packed value (an error), and drop what the task counted on.
local function end_task(task, key, job, head, state, packed)
  local record = redis.call('HMGET', key, fields.refs, fields.watched, fields.unpinned, fields.attempt)
  fail_first(task, key, record, state, packed)
  for index = 1, head[6] - 1 do
    local id = task .. string.format('%08x', index)
    local object = redis.call('HMGET', keys.object(id), fields.refs, fields.watched, fields.state)
    if object[3] == words.PENDING then
      redis.call('HSET', keys.object(id), fields.state, words.FAILED, fields.value, packed)
      wake(id, object[2], tonumber(object[1]) > 0, announcement(packed))
      if object[1] == '0' then release({id}) end
    end
  end
  redis.call('DEL', keys.spec(task))
  redis.call('SREM', keys.job_tasks(job), task)
  if head[6] < 0 and redis.call('HEXISTS', key, fields.missing) == 1 then redis.call('RPUSH', keys.chores, 'lost:' .. task .. ' 1') end
  if record[1] == '0' then
    if head[6] > 1 or head[6] < 0 then release({task .. '00000000'}) else redis.call('DEL', key) end
  end
  release(pins_of(head, record[3]))
end

-- The only node that a queued task may run on is not there.
local function end_unschedulable(head, why)
  local text = 'The task is not schedulable: task ' .. head[1] .. ' (' .. head[4] .. ') cannot run: ' .. why
  end_task(head[1], keys.task(head[1]), head[3], head, words.FAILED, system_error('TaskUnschedulableError', text))
end
