-- task_record: the hash of a task, which is also the record of its first return value.
-- @include settle

-- Variadic calls in slices: unpack fails at 8,000 values.
local function add_all(command, key, members)
  for first = 1, #members, limits.SLICE do
    redis.call(command, key, unpack(members, first, math.min(first + limits.SLICE - 1, #members)))
  end
end

local function retain_all(ids)
  for _, id in ipairs(ids) do retain(id) end
end

local function create_task(head, state, node, unready)
  local key = keys.task(head[1])
  local refs = head[6] == 0 and 0 or 1
  redis.call('HSET', key, fields.state, state, fields.job, head[3], fields.name, head[4], fields.attempt, 1,
    fields.retries, head[7], fields.refs, refs, fields.node, node or '')
  if unready then redis.call('HSET', key, fields.unready, unready) end
  if head[2] ~= 0 then redis.call('HSET', key, fields.kind, head[2], fields.actor, head[14]) end
  if head[6] > 1 then redis.call('HSET', key, fields.returns, head[6], fields.alive, head[6]) end
end

-- The submitting process holds every return value; values after the first have records of their own.
local function hold_returns(worker, head, held)
  if head[6] == 0 then return end
  held[#held + 1] = head[1] .. '00000000'
  for index = 1, head[6] - 1 do
    local id = head[1] .. string.format('%08x', index)
    redis.call('HSET', keys.object(id), fields.state, words.PENDING, fields.refs, 1)
    held[#held + 1] = id
  end
end

-- Write the task down with everything it waits for; returns how many that are.
local function register_dependent(head)
  local unready = 0
  local counted = {}
  for _, id in ipairs(head[8]) do
    if not counted[id] then
      counted[id] = true
      local key = object_key(id)
      local state = redis.call('HGET', key, fields.state)
      if state and not FINAL[state] then
        redis.call('RPUSH', keys.dependents(id), head[1])
        redis.call('HSET', key, fields.watched, 1)
        unready = unready + 1
      end
    end
  end
  return unready
end

-- Calls of dead actors: their tasks fail as soon as they are written down.
local orphans = {}

local function submit_call(head, spec)
  local actor = redis.call('HMGET', keys.actor(head[14]), fields.state, fields.node, fields.cause)
  if actor[1] == words.ALIVE then
    create_task(head, words.CLAIMED, actor[2])
    redis.call('SADD', keys.node_tasks(actor[2]), head[1])
    post(actor[2], words.MESSAGE_CALL, 1, spec)
  elseif actor[1] == words.PENDING or actor[1] == words.RESTARTING then
    create_task(head, words.QUEUED)
    redis.call('RPUSH', keys.parked(head[14]), head[1])
  else
    create_task(head, words.CLAIMED)
    orphans[#orphans + 1] = {head, actor[3] or 'The actor is dead and nothing is known of it any more.'}
  end
end

-- Give every return value of a task the same packed value (an error), and drop what the task counted on.
local function end_task(task, key, job, head, state, packed)
  local refs = tonumber(redis.call('HGET', key, fields.refs) or '0')
  redis.call('HSET', key, fields.state, state, fields.value, packed)
  local watched = redis.call('HGET', key, fields.watched)
  local first = task .. '00000000'
  wake(first, watched, refs > 0, announcement(packed))
  for index = 1, head[6] - 1 do
    local id = task .. string.format('%08x', index)
    local object = redis.call('HMGET', keys.object(id), fields.refs, fields.watched)
    if object[1] then
      redis.call('HSET', keys.object(id), fields.state, words.FAILED, fields.value, packed)
      wake(id, object[2], tonumber(object[1]) > 0, announcement(packed))
      if tonumber(object[1]) == 0 then release({id}) end
    end
  end
  redis.call('DEL', keys.spec(task))
  redis.call('SREM', keys.job_tasks(job), task)
  if refs == 0 then
    if head[6] > 1 then release({first}) else redis.call('DEL', key) end
  end
  local doomed = {}
  for _, id in ipairs(head[8]) do doomed[#doomed + 1] = id end
  for _, id in ipairs(head[9]) do doomed[#doomed + 1] = id end
  if head[2] == 2 then doomed[#doomed + 1] = head[14] .. 'fffffffe' end
  release(doomed)
end

local function fail_orphans()
  for _, orphan in ipairs(orphans) do
    local head = orphan[1]
    end_task(head[1], keys.task(head[1]), head[3], head, words.FAILED, system_error('ActorDiedError', orphan[2]))
  end
end

local function head_of(task)
  local spec = redis.call('GET', keys.spec(task))
  if not spec then return nil end
  return cmsgpack.unpack(string.sub(spec, 5, 4 + struct.unpack('<I4', spec))), spec
end
