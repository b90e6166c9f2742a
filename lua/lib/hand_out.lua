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
  local queue, is_plain = keys.queue(name), where_of(name) == ''
  local popped = redis.call('ZPOPMIN', queue, count)
  local taken = 0
  for i = 1, #popped, 2 do
    local task = popped[i]
    local key = keys.task(task)
    local record = redis.call('HMGET', key, fields.state, fields.attempt)
    local head, spec = head_of(task)
    if not is_plain then redis.call('HDEL', key, fields.queue) end
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

-- How many of `slots` tasks a node should start: all of them up to half of its CPUs; beyond that, only while no other node that waits for
-- work is used less. Whoever is rung for the rest and cannot come does not count for long.
local function its_share(node, demand, where, slots, free, cpus)
  local each = parse_demand(demand).CPU or 0
  if not cpus or cpus == 0 or each == 0 then return slots end
  local used = cpus - (free.CPU or 0)
  local share = math.max(0, math.ceil((cpus / 2 - used) / each))
  if share >= slots then return slots end
  local least = nil
  for other, offer in pairs(offers()) do
    if other ~= node and offer.cpus and comes(other, demand) and may_take(other, demand, where) then
      least = math.min(least or 1, used_share(offer))
    end
  end
  if not least then return slots end
  if least >= 0.5 then share = math.max(share, math.floor((least * cpus - used) / each + 0.0001) + 1) end
  return math.max(0, math.min(slots, share))
end

-- Take what fits of queues that begin with tasks of one priority, and no others: in the first round each queue gives its share, in the
-- second what it has. Queues that go on with less urgent tasks are added to `later`.
local function take_band(names, band, later, node, free, cpus, rooms, limit, claimed, work)
  local alone = #names == 1 and next(later) == nil
  local most = math.max(1, math.ceil(limit / #names))
  for _ = 1, 2 do
    local unfinished = {}
    for _, name in ipairs(names) do
      local demand, where, plain = demand_of(name), where_of(name), plain_name(name)
      local slots = times_fit(demand, free)
      if slots > 0 and pinned_node(where) ~= node then slots = its_share(node, demand, where, slots, free, cpus) end
      local count = math.min(slots + (rooms[plain] or 0), limit - #work, most)
      if count > 0 and where ~= '' and not may_take(node, demand, where) then count = 0 end
      if count > 0 and not alone then
        count = math.min(count, redis.call('ZCOUNT', keys.queue(name), '-inf', end_of_band(band)))
      end
      if count > 0 then
        local taken, following = claim_from(name, count, node, claimed, work)
        local started = math.min(taken, slots)
        for resource, units in pairs(parse_demand(demand)) do free[resource] = (free[resource] or 0) - units * started end
        if rooms[plain] then rooms[plain] = rooms[plain] - (taken - started) end
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

-- Call `add` with (name, place) of each queue of a list, in its order, until it returns true: those that it passes over (nobody can run
-- them, or only others) must not hide what stands behind them. Returns whether there is any.
local function each_queue(list, most, add)
  for first = 0, most - 1, limits.QUEUES_EXAMINED do
    local places = redis.call('ZRANGE', list, first, first + limits.QUEUES_EXAMINED - 1, 'WITHSCORES')
    for i = 1, #places, 2 do
      if add(places[i], tonumber(places[i + 1])) then return true end
    end
    if #places < 2 * limits.QUEUES_EXAMINED then return first > 0 or #places > 0 end
  end
  return true
end

-- The queues that a node might take from now: the cluster's and its own, in the order of their turns; {name, place}. Those with arguments
-- on this node come earlier, those with arguments on another one later, but not so late that they would wait for ever. And whether there
-- is any queue at all.
local function queues_for(node, free, rooms)
  local found, mixed = {}, false
  local function add(name, place)
    if times_fit(demand_of(name), free) > 0 or rooms[plain_name(name)] then
      local where = where_of(name)
      local near = pinned_node(where)
      if where == '' or may_ever_take(node, where) then
        mixed = mixed or near ~= nil
        found[#found + 1] = {name, place, place + (not near and 0 or near == node and -limits.NEAR_TURNS or limits.NEAR_TURNS)}
      end
    end
    return #found == limits.QUEUES_EXAMINED
  end
  local any = each_queue(keys.queues, limits.SLICE, add)
  any = each_queue(keys.node_queues(node), limits.SLICE, add) or any
  if mixed then table.sort(found, function(one, other) return one[3] < other[3] or (one[3] == other[3] and one[1] < other[1]) end) end
  return found, any
end

-- The first of all queues that a node might ever take from.
local function queues_left(node)
  local names = {}
  local function add(name)
    if may_ever_take(node, where_of(name)) then names[#names + 1] = name end
  end
  each_queue(keys.queues, limits.QUEUES_EXAMINED, add)
  each_queue(keys.node_queues(node), limits.QUEUES_EXAMINED, add)
  return names
end

-- Take what fits, the most urgent first. `free` and `rooms` are counted down.
local function take_work(queues, node, free, cpus, rooms, limit, claimed, work)
  local bands = {}
  for _, queue in ipairs(queues) do
    local band = band_of(queue[2])
    bands[band] = bands[band] or {}
    table.insert(bands[band], queue[1])
  end
  while #work < limit and next(bands) do
    local band = math.huge
    for each in pairs(bands) do band = math.min(band, each) end
    local names = bands[band]
    bands[band] = nil
    take_band(names, band, bands, node, free, cpus, rooms, limit, claimed, work)
  end
end

-- Such a node lets new tasks queue behind what is left.
local function demands_of(names)
  local demands, seen = {}, {}
  for _, name in ipairs(names) do
    local demand = demand_of(name)
    if not seen[demand] then demands[#demands + 1] = demand end
    seen[demand] = true
  end
  return demands
end

-- `free_text` is what the node has free (see lib/offers), `rooms` how many more tasks of a queue its busy workers would take ahead of time.
-- Returns the work, the claimed ids and the demands of what is left. A node that could take more is remembered as idle; one that leaves
-- fitting work rings the next.
local function hand_out(node, free_text, rooms, limit)
  local work, claimed, free = {}, {}, {}
  local offer = parse_offer(free_text)
  for name, units in pairs(offer.free) do free[name] = units end
  local queues, any = queues_for(node, free, rooms)
  take_work(queues, node, free, offer.cpus, rooms, limit, claimed, work)
  local left = any and queues_left(node) or {}
  add_all('SADD', keys.node_tasks(node), claimed)
  local idle = #work < limit
  write_offer(node, idle and free or nil, offer.cpus)
  if any and others_wait(node, idle) then
    each_queue(keys.queues, limits.QUEUES_EXAMINED, function(name) ring_idle(name, 1, node) end)
  end
  return work, claimed, demands_of(left)
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

-- Keeps what was handed out until the next call that hands out: a node asks for work one call at a time.
local function close_with_work(channel, number, claimed)
  close_call(channel, number, {words.REPEAT, claimed})
end
