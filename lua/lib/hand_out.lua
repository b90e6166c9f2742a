-- hand_out: give a node the ready work that fits it.
-- @include task_record

-- What the node needs to know of a ready argument: its value if it is small, else where it is.
local function argument_news(head)
  local news = {}
  for _, id in ipairs(head[8]) do
    local object = redis.call('HMGET', object_key(id), fields.value, fields.size, fields.at)
    if object[3] and object[3] ~= '' then
      news[#news + 1] = {words.MESSAGE_LOCATED, id, object[2] .. ' ' .. object[3]}
    elseif object[1] then
      news[#news + 1] = {words.MESSAGE_VALUE, id, object[1]}
    end
  end
  return news
end

-- {attempt, packed spec, news of arguments}
local function work_item(task)
  local head, spec = head_of(task)
  if not head then return nil end
  return {tonumber(redis.call('HGET', keys.task(task), fields.attempt)), spec, argument_news(head)}
end

local function claim_from(name, count, node, claimed, work)
  local queue = keys.queue(name)
  local popped = redis.call('ZPOPMIN', queue, count)
  local taken = 0
  for i = 1, #popped, 2 do
    local task = popped[i]
    local key = keys.task(task)
    if redis.call('HGET', key, fields.state) == words.QUEUED then
      redis.call('HSET', key, fields.state, words.CLAIMED, fields.node, node)
      claimed[#claimed + 1] = task
      work[#work + 1] = work_item(task)
      taken = taken + 1
    end
  end
  if redis.call('EXISTS', queue) == 1 then
    redis.call('ZINCRBY', keys.queues, taken, name)
  else
    redis.call('ZREM', keys.queues, name)
  end
  return taken
end

-- `free` is the node's free resources as text, `rooms` how many more tasks of a queue its busy workers would take ahead.
-- Returns the work and the claimed ids. A node that gets nothing is remembered as idle; one that leaves fitting work rings the next.
local function hand_out(node, free_text, rooms, limit)
  local work, claimed = {}, {}
  local free = {}
  for name, units in pairs(parse_demand(free_text)) do free[name] = units end
  local names = redis.call('ZRANGE', keys.queues, 0, limits.QUEUES_EXAMINED - 1)
  local share = math.max(1, math.ceil(limit / math.max(1, #names)))
  for round = 1, 2 do
    for _, name in ipairs(names) do
      local demand = string.match(name, '^(.*)|')
      local slots = times_fit(demand, free)
      local count = math.min(slots + (rooms[name] or 0), limit - #work, round == 1 and share or limit)
      if count > 0 then
        local taken = claim_from(name, count, node, claimed, work)
        local into_room = math.min(taken, rooms[name] or 0)
        rooms[name] = (rooms[name] or 0) - into_room
        for resource, units in pairs(parse_demand(demand)) do
          free[resource] = (free[resource] or 0) - units * (taken - into_room)
        end
      end
    end
  end
  add_all('SADD', keys.node_tasks(node), claimed)
  if #work == 0 then
    redis.call('HSET', keys.idle, node, free_text)
  else
    redis.call('HDEL', keys.idle, node)
  end
  if redis.call('EXISTS', keys.idle) == 1 then
    for _, name in ipairs(redis.call('ZRANGE', keys.queues, 0, limits.QUEUES_EXAMINED - 1)) do
      ring_idle(string.match(name, '^(.*)|'), 1, node)
    end
  end
  return work, claimed
end

-- The work that an earlier call handed out, for a caller that lost the reply.
local function hand_again(packed_ids)
  local work = {}
  if packed_ids ~= '' then
    for _, task in ipairs(cmsgpack.unpack(packed_ids)) do work[#work + 1] = work_item(task) end
  end
  return work
end

-- How much ready work is left: a sign for nodes to let new tasks queue behind it.
local function backlog()
  return redis.call('ZCARD', keys.queues)
end

local function close_with_work(channel, number, claimed)
  redis.call('HSET', channel, fields.last, number, fields.reply, #claimed > 0 and cmsgpack.pack(claimed) or '')
end
