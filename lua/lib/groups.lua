-- groups: how a placement group ends, loses bundles, and takes with it what runs in it.
-- @include actors
-- @include place

-- End what waits in the queues of a group that is no more, a slice at a time.
local function sweep_group(id)
  local left = 50 -- an actor's end takes longer than a task's
  for _, name in ipairs(redis.call('SMEMBERS', keys.group_queues(id))) do
    local tasks = redis.call('ZRANGE', keys.queue(name), 0, left - 1)
    for _, task in ipairs(tasks) do
      local head = head_of(task)
      if head and head[2] == 1 then
        bury_homeless(task, id)
      elseif head then
        unqueue(task, head)
        end_task(task, keys.task(task), head[3], head, words.FAILED, homeless_error(head))
      end
    end
    left = left - #tasks
    if left <= 0 then return redis.call('RPUSH', keys.chores, 'group:' .. id) end
  end
  redis.call('DEL', keys.group_queues(id))
end

local function forget_oldest_removed(id)
  redis.call('LPUSH', keys.removed_groups, id)
  if redis.call('LLEN', keys.removed_groups) > limits.REMOVED_GROUPS then
    redis.call('DEL', keys.group(redis.call('RPOP', keys.removed_groups)))
  end
end

-- False when there is no such group (any more).
local function remove_group(id)
  local record = redis.call('HMGET', keys.group(id), fields.state, fields.bundles, fields.places, fields.job, fields.name, fields.namespace,
    fields.reserving, fields.awaited)
  if not record[1] or record[1] == words.REMOVED then return false end
  local bundles, told = cjson.decode(record[2]), {}
  unask_all(bundles, words_of(record[3]), record[7], record[8])
  for index, node in ipairs(words_of(record[3])) do
    if node ~= '-' then
      credit(node, bundles[index], 1)
      if not told[node] then
        told[node] = true
        redis.call('SREM', keys.node_groups(node), id)
        post(node, words.MESSAGE_RELEASE, id)
      end
    end
  end
  redis.call('HSET', keys.group(id), fields.state, words.REMOVED, fields.awaited, '', fields.reserving, '')
  redis.call('SREM', keys.groups, id)
  redis.call('SREM', keys.job_groups(record[4]), id)
  redis.call('ZREM', keys.waiting_groups, id)
  if record[5] ~= '' then redis.call('HDEL', keys.group_names, record[6] .. '/' .. record[5]) end
  tell_waiters(id, words.FAILED, system_error('TaskPlacementGroupRemoved', removal_text(id)))
  sweep_group(id)
  forget_oldest_removed(id)
  return true
end

-- Every node has granted what it was asked for: the group is there.
local function complete_group(id, record)
  local places, nodes, count = words_of(record.places), {}, 0
  for _, index in ipairs(words_of(record.reserving)) do
    local node = places[tonumber(index)]
    if not nodes[node] then
      nodes[node] = true
      count = count + 1
    end
  end
  if count > 1 then -- a node that reserved alone has committed by itself
    for node in pairs(nodes) do post(node, words.MESSAGE_COMMIT, id) end
  end
  redis.call('HSET', keys.group(id), fields.state, words.CREATED, fields.awaited, '', fields.reserving, '', fields.ended, record.now)
  tell_waiters(id, words.READY, record.handle)
end

-- A node's answer to an attempt. False when the attempt is over.
local function answer_attempt(id, node, attempt, is_granted, now)
  local found = redis.call('HMGET', keys.group(id), fields.attempt, fields.awaited, fields.places, fields.reserving, fields.handle,
    fields.bundles)
  if not found[1] or tonumber(found[1]) ~= attempt then return false end
  local awaited, is_awaited = {}, false
  for _, other in ipairs(words_of(found[2])) do
    if other == node then is_awaited = true else awaited[#awaited + 1] = other end
  end
  if not is_awaited then return false end
  if not is_granted then
    withdraw(id, node)
    place_or_wait(id, false, node)
    return true
  end
  unask_all(cjson.decode(found[6]), words_of(found[3]), found[4], node)
  if #awaited > 0 then
    redis.call('HSET', keys.group(id), fields.awaited, table.concat(awaited, ' '))
  else
    complete_group(id, {places = found[3], reserving = found[4], handle = found[5], now = now})
  end
  return true
end

-- A node is gone, and what it had set aside with it: that must be placed anew, ahead of others.
local function lose_bundles(id, node)
  redis.call('SREM', keys.node_groups(node), id)
  local record = redis.call('HMGET', keys.group(id), fields.state, fields.awaited)
  if not record[1] or record[1] == words.REMOVED then return end
  if record[2] ~= '' then withdraw(id, node) end
  local places = words_of(redis.call('HGET', keys.group(id), fields.places))
  for index, place in ipairs(places) do
    if place == node then places[index] = '-' end
  end
  local state = record[1] == words.CREATED and words.RESCHEDULING or record[1]
  redis.call('HSET', keys.group(id), fields.places, table.concat(places, ' '), fields.state, state)
  place_or_wait(id, true)
end
