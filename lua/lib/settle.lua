-- settle: make a value visible, and wake what waited for it.
-- @include references
-- @include placing

-- The kind and data of the inbox message that carries or announces a value; of a located one: size and nodes.
local function announcement(value, size, at)
  if at and at ~= '' then return words.MESSAGE_LOCATED, size .. ' ' .. at end
  if #value > limits.INBOX_VALUE then return words.MESSAGE_FETCH, '' end
  return words.MESSAGE_VALUE, value
end

-- `details` are attributes of the exception, see redray.exceptions.system_error.
local function system_error(class, message, details)
  return 'S' .. cmsgpack.pack({class, message, details})
end

-- A dependency of these tasks is ready: queue those that wait for nothing else.
local function wake_dependents(id)
  local dependents = keys.dependents(id)
  local woken = redis.call('LPOP', dependents, limits.SLICE)
  if not woken then return end
  for _, task in ipairs(woken) do
    local key = keys.task(task)
    local record = redis.call('HMGET', key, fields.state, fields.unready)
    if record[1] == words.WAITING then
      if tonumber(record[2]) > 1 then
        redis.call('HINCRBY', key, fields.unready, -1)
      else
        local spec = redis.call('GET', keys.spec(task))
        local head = cmsgpack.unpack(string.sub(spec, 5, 4 + struct.unpack('<I4', spec)))
        redis.call('HDEL', key, fields.unready)
        redis.call('HSET', key, fields.state, words.QUEUED)
        queue_task(task, key, head, queue_score(head[11], head[10], redis.call('INCR', keys.sequence)))
      end
    end
  end
  if #woken == limits.SLICE then
    -- More than a slice may wait: whoever does the chores goes on.
    redis.call('RPUSH', keys.chores, 'wake:' .. id)
  end
end

-- Tell everybody who waited: the maker's process (which always hears of its own tasks) and those that asked.
local function wake(id, watched, held, kind, data)
  local maker = string.sub(id, 1, 16)
  if held then post(maker, kind, id, data) end
  if watched then
    local watchers = redis.call('SMEMBERS', keys.watchers(id))
    for _, watcher in ipairs(watchers) do
      if watcher ~= maker or not held then post(watcher, kind, id, data) end
    end
    if #watchers > 0 then redis.call('DEL', keys.watchers(id)) end
    wake_dependents(id)
  end
end
