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
local function work_item(attempt, head, spec)
  return {tonumber(attempt), spec, argument_news(head)}
end

-- Returns how many tasks were taken, and how urgent the next one is, nil when none is left.
local function claim_from(name, count, node, claimed, work)
  local queue = keys.queue(name)
  local popped = redis.call('ZPOPMIN', queue, count)
  local taken = 0
  for i = 1, #popped, 2 do
    local task = popped[i]
    local key = keys.task(task)
    local record = redis.call('HMGET', key, fields.state, fields.attempt)
    local head, spec = head_of(task)
    if record[1] == words.QUEUED and still_ready(task, key, head) then
      redis.call('HSET', key, fields.state, words.CLAIMED, fields.node, node)
      claimed[#claimed + 1] = task
      work[#work + 1] = work_item(record[2], head, spec)
      taken = taken + 1
    end
  end
  local _, band = keep_place(name, taken)
  return taken, band
end

-- Take what fits of queues that begin with tasks of one priority, and no others: in the first round each queue gives its share, in the
-- second what it has. Queues that go on with less urgent tasks are added to `later`.
local function take_band(names, band, later, node, free, rooms, limit, claimed, work)
  local alone = #names == 1 and next(later) == nil
  local most = math.max(1, math.ceil(limit / #names))
  for _ = 1, 2 do
    local unfinished = {}
    for _, name in ipairs(names) do
      local demand = demand_of(name)
      local slots = times_fit(demand, free)
      local count = math.min(slots + (rooms[name] or 0), limit - #work, most)
      if count > 0 and not alone then
        count = math.min(count, redis.call('ZCOUNT', keys.queue(name), '-inf', '(' .. string.format('%.0f', (band + 1) * BAND)))
      end
      if count > 0 then
        local taken, following = claim_from(name, count, node, claimed, work)
        local started = math.min(taken, slots)
        for resource, units in pairs(parse_demand(demand)) do free[resource] = (free[resource] or 0) - units * started end
        if rooms[name] then rooms[name] = rooms[name] - (taken - started) end
        if following == band then
          unfinished[#unfinished + 1] = name
        elseif following then
          later[following] = later[following] or {}
          table.insert(later[following], name)
        end
      end
    end
    names, most = unfinished, limit
  end
end

-- Take what fits, the most urgent first. `free` and `rooms` are counted down.
local function take_work(node, free, rooms, limit, claimed, work)
  local places = redis.call('ZRANGE', keys.queues, 0, limits.QUEUES_EXAMINED - 1, 'WITHSCORES')
  local bands = {}
  for i = 1, #places, 2 do
    local band = band_of(places[i + 1])
    bands[band] = bands[band] or {}
    table.insert(bands[band], places[i])
  end
  while #work < limit and next(bands) do
    local band = math.huge
    for each in pairs(bands) do band = math.min(band, each) end
    local names = bands[band]
    bands[band] = nil
    take_band(names, band, bands, node, free, rooms, limit, claimed, work)
  end
end

local function free_as_text(free)
  local parts = {}
  for name, units in pairs(free) do
    if units > 0 then parts[#parts + 1] = name .. ':' .. units / 10000 end
  end
  return #parts > 0 and table.concat(parts, ',') or '-'
end

-- `free` is the node's free resources as text, `rooms` how many more tasks of a queue its busy workers would take ahead of time.
-- Returns the work and the claimed ids. A node that could take more is remembered as idle; one that leaves fitting work rings the next.
local function hand_out(node, free_text, rooms, limit)
  local work, claimed, free = {}, {}, {}
  for name, units in pairs(parse_demand(free_text)) do free[name] = units end
  take_work(node, free, rooms, limit, claimed, work)
  add_all('SADD', keys.node_tasks(node), claimed)
  local idle = #work < limit
  if idle then redis.call('HSET', keys.idle, node, free_as_text(free)) else redis.call('HDEL', keys.idle, node) end
  if redis.call('HLEN', keys.idle) > (idle and 1 or 0) then
    for _, name in ipairs(redis.call('ZRANGE', keys.queues, 0, limits.QUEUES_EXAMINED - 1)) do
      ring_idle(demand_of(name), 1, node)
    end
  end
  return work, claimed
end

-- The work that an earlier call handed out, for a caller that lost the reply: what is its own still.
local function hand_again(node, tasks)
  local work = {}
  for _, task in ipairs(tasks ~= '' and tasks or {}) do
    local record = redis.call('HMGET', keys.task(task), fields.node, fields.state, fields.attempt)
    if record[1] == node and (record[2] == words.CLAIMED or record[2] == words.RUNNING) then
      work[#work + 1] = work_item(record[3], head_of(task))
    end
  end
  return work
end

-- The demands of the ready work that is left. A node that could ever run some of it lets new tasks queue behind it.
local function leftover()
  local demands, seen = {}, {}
  for _, name in ipairs(redis.call('ZRANGE', keys.queues, 0, limits.QUEUES_EXAMINED - 1)) do
    local demand = demand_of(name)
    if not seen[demand] then demands[#demands + 1] = demand end
    seen[demand] = true
  end
  return demands
end

-- Keeps what was handed out until the next call that hands out: a node asks for work one call at a time.
local function close_with_work(channel, number, claimed)
  close_call(channel, number, {words.REPEAT, claimed})
end
