-- references: an object lives while something counts on it: a process' hold, a pending task's argument, a value that contains it.
-- @include object_key
-- @include inbox

-- False for what is not there (any more): a record without `refs` is a freed first return value whose siblings live.
local function retain(id)
  local key = object_key(id)
  if not redis.call('HGET', key, fields.refs) then return false end
  redis.call('HINCRBY', key, fields.refs, 1)
  return true
end

-- Keep the refs inside a value alive with it. Only those that are there may be let go of with it.
local function contain(key, inner)
  local kept = {}
  for _, id in ipairs(inner) do
    if retain(id) then kept[#kept + 1] = id end
  end
  if #kept > 0 then redis.call('HSET', key, fields.contains, table.concat(kept, ' ')) end
end

local FINAL = {
  [words.FINISHED] = true, [words.FAILED] = true, [words.CANCELLED] = true,
  [words.READY] = true, [words.LOST] = true,
}

-- Delete one object whose last reference is gone and name what it counted on in `doomed`.
local function free_object(id, key, record, doomed)
  local at, contains, lineage, alive = record[3], record[4], record[5], record[6]
  if at then
    for node in string.gmatch(at, '%S+') do
      redis.call('SREM', keys.node_objects(node), id)
      post(node, words.MESSAGE_FREE, id)
    end
  end
  if contains then
    for inner in string.gmatch(contains, '%S+') do doomed[#doomed + 1] = inner end
  end
  local task_key = keys.task(string.sub(id, 1, 24))
  if not alive and key ~= task_key and not is_put(id) then alive = redis.call('HGET', task_key, fields.alive) end
  if alive then
    -- One of several return values: the task's record stays until the last of them goes.
    if redis.call('HINCRBY', task_key, fields.alive, -1) > 0 then
      if key == task_key then
        redis.call('HDEL', key, fields.refs, fields.value, fields.at, fields.size, fields.contains)
      else
        redis.call('DEL', key)
      end
      return
    end
    lineage = redis.call('HGET', task_key, fields.lineage)
    redis.call('DEL', task_key)
  end
  if lineage then
    for pin in string.gmatch(lineage, '%S+') do doomed[#doomed + 1] = pin end
    redis.call('DEL', keys.spec(string.sub(id, 1, 24)))
  end
  redis.call('DEL', key, keys.watchers(id))
end

-- An actor without handles: its node lets it finish what is queued and ends it; one that is dead is forgotten.
local function release_actor(key, id)
  local actor = redis.call('HMGET', key, fields.state, fields.node)
  if actor[1] == words.DEAD then
    redis.call('DEL', key, keys.callers(string.sub(id, 1, 24)))
  elseif actor[1] == words.ALIVE then
    post(actor[2], words.MESSAGE_RETIRE, string.sub(id, 1, 24))
  else
    redis.call('RPUSH', keys.chores, 'actor:' .. string.sub(id, 1, 24))
  end
end

-- Nobody wants to hear of a placement group (any more) by this object. Of what else is not ready yet, a task or a put will tell.
local function forget_waiter(id, key)
  local group = redis.call('HGET', key, fields.group)
  if not group then return redis.call('HSET', key, fields.refs, 0) end
  redis.call('SREM', keys.group_waiters(group), id)
  redis.call('DEL', key, keys.watchers(id), keys.dependents(id))
end

-- Drop one reference of each object in `doomed`, and of what those counted on, at most a slice; the rest goes to keys.chores.
local function release(doomed)
  local at = 1
  while at <= #doomed do
    if at > limits.SLICE then
      local rest = {}
      for i = at, #doomed do
        rest[#rest + 1] = doomed[i]
        if #rest == limits.SLICE or i == #doomed then
          redis.call('RPUSH', keys.chores, unpack(rest))
          rest = {}
        end
      end
      return
    end
    local id = doomed[at]
    local key = object_key(id)
    local record = redis.call('HMGET', key, fields.refs, fields.state, fields.at, fields.contains, fields.lineage, fields.alive)
    if record[1] then
      if tonumber(record[1]) > 1 then
        redis.call('HINCRBY', key, fields.refs, -1)
      elseif string.sub(id, 25) == 'fffffffe' then
        redis.call('HSET', key, fields.refs, 0)
        release_actor(key, id)
      elseif FINAL[record[2]] then
        free_object(id, key, record, doomed)
      elseif is_put(id) then
        forget_waiter(id, key)
      else
        redis.call('HSET', key, fields.refs, 0)
      end
    end
    at = at + 1
  end
end
