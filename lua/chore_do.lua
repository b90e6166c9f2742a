-- chore_do: does one slice of what earlier scripts left to do: anybody may call it, any number of times.
--
-- FLAGS allow-oom
-- KEYS
--   chores    list     object ids to release, or a kind of chore, a colon, and what it is about
-- ARGV
--   now       ms       0 = the server's clock
-- RETURN
--   DONE               nothing is left
--   MORE left
-- @include endings
-- @include calls
-- @include streams
-- @include groups

local function again(kind, id) redis.call('RPUSH', chores, kind .. ':' .. id) end

local ACTORS = 50 -- in one slice: an actor's end takes longer than a task's
local does = {}

function does.wake(id) wake_dependents(id) end

-- A worker that crashed takes the actors it created with it, as in Ray; one that left in order does not.
function does.process(id)
  if redis.call('HGET', keys.process(id), fields.crashed) == '1' then
    local created = redis.call('SPOP', keys.created(id), ACTORS)
    for _, actor in ipairs(created) do end_actor(actor, 'The actor is dead because its owner has died: the process that created it.') end
    if #created == ACTORS then return again('process', id) end
  end
  local holds = redis.call('SPOP', keys.holds(id), limits.SLICE)
  release(holds)
  if #holds == limits.SLICE then return again('process', id) end
  redis.call('DEL', keys.process(id), keys.inbox(id), keys.created(id))
end

-- No handle is left of an actor that is not alive.
function does.actor(id)
  local actor = redis.call('HMGET', keys.actor(id), fields.refs, fields.state)
  if actor[1] ~= '0' or actor[2] == words.ALIVE then return end
  local node = redis.call('HGET', keys.task(id), fields.node)
  if not node or node == '' then bury(id, 'All handles of the actor went out of scope.') end
end

function does.parked(id)
  local calls = take_parked(id, limits.SLICE)
  local cause = redis.call('HGET', keys.actor(id), fields.cause) or 'The actor is dead.'
  for _, task in ipairs(calls) do
    local record = redis.call('HMGET', keys.task(task), fields.state, fields.job)
    local head = head_of(task)
    if record[1] == words.QUEUED and head then
      end_task(task, keys.task(task), record[2], head, words.FAILED, actor_error(id, 'ActorDiedError', cause))
    end
  end
  if #calls == limits.SLICE then again('parked', id) end
end

-- A ready task that found no node it may run on.
function does.place(id)
  local head = head_of(id)
  if not head or redis.call('HGET', keys.task(id), fields.state) ~= words.QUEUED then return end
  local name, refusal = place_task(id, keys.task(id), head, queue_score(head[11], head[10], 0))
  if name then return ring_idle(name, 1) end
  if head[2] == 1 then bury_unschedulable(id, refusal) else end_unschedulable(head, refusal) end
end

-- What waits for a node that has gone: elsewhere if it may, else it ends.
function does.node(id)
  local name = redis.call('ZRANGE', keys.node_queues(id), 0, 0)[1]
  if not name then return end
  local popped = redis.call('ZPOPMIN', keys.queue(name), ACTORS)
  keep_place(name, 0)
  for i = 1, #popped, 2 do
    redis.call('HDEL', keys.task(popped[i]), fields.queue)
    does.place(popped[i])
  end
  return again('node', id)
end

-- Tasks wait for a placement group that is no more.
function does.group(id)
  return sweep_group(id)
end

-- More objects stood for a placement group than fit into a slice.
function does.waiters(id)
  local group = redis.call('HMGET', keys.group(id), fields.state, fields.handle)
  if group[1] == words.CREATED then return tell_waiters(id, words.READY, group[2]) end
  if group[1] == words.PENDING or group[1] == words.RESCHEDULING then return end
  tell_waiters(id, words.FAILED, system_error('TaskPlacementGroupRemoved', removal_text(id)))
end

local function cancel_for_job(task, job)
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node)
  redis.call('SREM', keys.job_tasks(job), task)
  if record[1] == words.QUEUED or record[1] == words.WAITING then
    local head = head_of(task)
    unqueue(task, head)
    end_task(task, key, job, head, words.CANCELLED, system_error('TaskCancelledError', 'The job that submitted the task has ended.'))
  end
end

-- Actors first (their calls fail), then tasks, then functions and packages, then the job itself.
function does.job(id)
  redis.call('HSET', keys.job(id), fields.state, words.ENDED, fields.ended, now)
  local actors = redis.call('SRANDMEMBER', keys.job_actors(id), ACTORS)
  for _, actor in ipairs(actors) do
    end_actor(actor, 'The job that created the actor has ended: its owner has died or left.')
    redis.call('SREM', keys.job_actors(id), actor)
  end
  if #actors == ACTORS then return again('job', id) end
  local groups = redis.call('SRANDMEMBER', keys.job_groups(id), ACTORS)
  for _, group in ipairs(groups) do remove_group(group) end
  if #groups > 0 then place_waiting() end
  if #groups == ACTORS then return again('job', id) end
  local tasks = redis.call('SRANDMEMBER', keys.job_tasks(id), limits.SLICE)
  for _, task in ipairs(tasks) do cancel_for_job(task, id) end
  if #tasks == limits.SLICE then return again('job', id) end
  for _, fn in ipairs(redis.call('SPOP', keys.job_functions(id), limits.SLICE)) do
    if redis.call('HINCRBY', keys.fn(fn), fields.users, -1) <= 0 then
      local inner = {}
      for object in string.gmatch(redis.call('HGET', keys.fn(fn), fields.contains) or '', '%S+') do inner[#inner + 1] = object end
      redis.call('DEL', keys.fn(fn))
      release(inner)
    end
  end
  for _, package in ipairs(redis.call('SPOP', keys.job_packages(id), limits.SLICE)) do
    if redis.call('HINCRBY', keys.package(package), fields.users, -1) <= 0 then redis.call('UNLINK', keys.package(package)) end
  end
  if redis.call('EXISTS', keys.job_functions(id), keys.job_packages(id)) > 0 then return again('job', id) end
  for _, node in ipairs(redis.call('SMEMBERS', keys.nodes)) do post(node, words.MESSAGE_JOB_ENDED, id) end
  redis.call('SREM', keys.jobs, id)
  redis.call('EXPIRE', keys.job(id), limits.TOMBSTONE_S)
  redis.call('DEL', keys.logs(id))
end

-- Items of a stream whose reader is gone, from one that it had not heard of: "unread:TASK INDEX".
function does.unread(place)
  local task, first = string.match(place, '^(%x+) (%d+)$')
  local items, doomed = tonumber(redis.call('HGET', keys.task(task), fields.items) or 0), {}
  local last = math.min(items, tonumber(first) + limits.SLICE - 1)
  for index = tonumber(first), last do
    local id = item_id(task, index)
    if redis.call('SREM', keys.holds(string.sub(task, 1, 16)), id) == 1 then doomed[#doomed + 1] = id end
  end
  release(doomed)
  if last < items then again('unread', task .. ' ' .. last + 1) end
end

-- Items that were lost, and that no attempt will bring any more: "lost:TASK INDEX".
function does.lost(place)
  local task, first = string.match(place, '^(%x+) (%d+)$')
  local items = tonumber(redis.call('HGET', keys.task(task), fields.items) or 0)
  local last = math.min(items, tonumber(first) + limits.SLICE - 1)
  for index = tonumber(first), last do give_up_item(task, item_id(task, index)) end
  if last < items then again('lost', task .. ' ' .. last + 1) end
end

local objects = {}
for _ = 1, limits.SLICE do
  local chore = redis.call('LPOP', chores)
  if not chore then break end
  local kind, id = string.match(chore, '^(%a+):(.*)$')
  if kind then
    does[kind](id)
    break
  end
  objects[#objects + 1] = chore
end
release(objects)
save_free()
send_mail()
local left = redis.call('LLEN', chores)
if left > 0 then return {words.MORE, left} end
return {words.DONE}
