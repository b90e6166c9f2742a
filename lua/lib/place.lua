-- place: which node each bundle of a placement group goes to, from what the nodes last said is free. See
-- docs/decisions/placement-groups.md.
-- @include settle

local places_by_id, open_places = nil, nil

local function units_of(text)
  local units = {}
  for name, count in pairs(parse_demand(text or '-')) do units[name] = count end
  return units
end

local function units_as_text(units)
  local parts = {}
  for name, count in pairs(units) do
    if count > 0 then parts[#parts + 1] = name .. ':' .. string.format('%.4f', count / 10000) end
  end
  return #parts > 0 and table.concat(parts, ',') or '-'
end

-- The nodes that may take bundles: {id, free, asked}, both {name = units}: what is free after all that was asked for; what was asked
-- for, and not answered yet. Read once per script, and changed by what it reserves and releases.
local function open_nodes()
  if open_places then return open_places end
  open_places, places_by_id = {}, {}
  local ids = redis.call('SMEMBERS', keys.nodes)
  table.sort(ids)
  for _, id in ipairs(ids) do
    local node = redis.call('HMGET', keys.node(id), fields.state, fields.free, fields.draining, fields.asked)
    if node[1] == words.ALIVE and node[2] and not node[3] then
      local place = {id = id, free = units_of(node[2]), asked = units_of(node[4])}
      open_places[#open_places + 1] = place
      places_by_id[id] = place
    end
  end
  return open_places
end

local function fits_units(needed, free)
  for name, units in pairs(needed) do
    if (free[name] or 0) < units then return false end
  end
  return true
end

local function add_units(needed, free, sign)
  for name, units in pairs(needed) do free[name] = (free[name] or 0) + sign * units end
end

-- A bundle that a node does not hold any more (-1: holds now), as far as the record of what is free goes.
local function credit(node, demand, sign)
  open_nodes()
  local place = places_by_id[node]
  if place then
    add_units(parse_demand(demand), place.free, sign)
    place.changed = true
  end
end

-- A node has answered, or need not any more.
local function unask(node, demand)
  open_nodes()
  local place = places_by_id[node]
  if place then
    add_units(parse_demand(demand), place.asked, -1)
    place.changed = true
  end
end

-- A node says what is free. It does not know yet of what it was asked for and has not answered.
local function told_free(node, text)
  local asked = redis.call('HGET', keys.node(node), fields.asked)
  if asked and asked ~= '-' then
    local free = units_of(text)
    add_units(parse_demand(asked), free, -1)
    text = units_as_text(free)
  end
  redis.call('HSET', keys.node(node), fields.free, text)
end

-- Write what has changed of the nodes' free resources: a guess, until they say so themselves.
local function save_free()
  for _, place in ipairs(open_places or {}) do
    if place.changed then
      redis.call('HSET', keys.node(place.id), fields.free, units_as_text(place.free), fields.asked, units_as_text(place.asked))
      place.changed = nil
    end
  end
end

-- First what few nodes can take, then what is large: what is left over for them at the end would be too little.
local function hardest_first(bundles, open, nodes)
  if #open == 1 then return open end
  local sorted, takers = {}, {}
  for _, index in ipairs(open) do
    sorted[#sorted + 1] = index
    takers[index] = 0
    for _, node in ipairs(nodes) do
      if fits_units(parse_demand(bundles[index]), node.free) then takers[index] = takers[index] + 1 end
    end
  end
  table.sort(sorted, function(a, b)
    if takers[a] ~= takers[b] then return takers[a] < takers[b] end
    local one, other = parse_demand(bundles[a]), parse_demand(bundles[b])
    for _, name in ipairs({'GPU', 'CPU', 'memory'}) do
      if (one[name] or 0) ~= (other[name] or 0) then return (one[name] or 0) > (other[name] or 0) end
    end
    return a < b
  end)
  return sorted
end

-- How many of the bundles, in this order, fit onto a node together.
local function how_many(bundles, sorted, node)
  if #sorted == 1 then return fits_units(parse_demand(bundles[sorted[1]]), node.free) and 1 or 0 end
  local free, count = {}, 0
  for name, units in pairs(node.free) do free[name] = units end
  for _, index in ipairs(sorted) do
    local needed = parse_demand(bundles[index])
    if fits_units(needed, free) then
      add_units(needed, free, -1)
      count = count + 1
    end
  end
  return count
end

-- As few nodes as possible: again and again the one that takes most of what is left. `strict`: one node takes all.
local function pack_bundles(bundles, sorted, nodes, used, strict, assign)
  while #sorted > 0 do
    local best, most = nil, 0
    for _, node in ipairs(nodes) do
      if not strict or next(used) == nil or used[node.id] then
        local count = how_many(bundles, sorted, node)
        if count > most or (count == most and count > 0 and used[node.id] and not used[best.id]) then best, most = node, count end
      end
    end
    if not best or (strict and most < #sorted) then return false end
    local rest = {}
    for _, index in ipairs(sorted) do
      if fits_units(parse_demand(bundles[index]), best.free) then assign(index, best) else rest[#rest + 1] = index end
    end
    sorted = rest
  end
  return true
end

-- As many nodes as possible: each bundle goes where the group has fewest, then where most CPUs are free.
local function spread_bundles(bundles, sorted, nodes, used, strict, assign)
  for _, index in ipairs(sorted) do
    local best = nil
    for _, node in ipairs(nodes) do
      local count = used[node.id] or 0
      if fits_units(parse_demand(bundles[index]), node.free) and not (strict and count > 0) then
        local least = best and (used[best.id] or 0)
        if not best or count < least or (count == least and (node.free.CPU or 0) > (best.free.CPU or 0)) then best = node end
      end
    end
    if not best then return false end
    assign(index, best)
  end
  return true
end

-- When neither way finds room for all: each where it leaves least, which wastes less than both.
local function fit_tightly(bundles, sorted, nodes, assign)
  for _, index in ipairs(sorted) do
    local needed, best, least = parse_demand(bundles[index]), nil, nil
    for _, node in ipairs(nodes) do
      if fits_units(needed, node.free) then
        local rest = 0
        for name, units in pairs(needed) do rest = rest + node.free[name] - units end
        if not best or rest < least then best, least = node, rest end
      end
    end
    if not best then return false end
    assign(index, best)
  end
  return true
end

-- {[index] = node id} for the `open` bundles (1, 2, ...), or nil. `used` counts the bundles that the group has, by node.
local function choose_nodes(bundles, open, used, strategy, except)
  local nodes, chosen = {}, {}
  for _, node in ipairs(open_nodes()) do
    if node.id ~= except then nodes[#nodes + 1] = node end
  end
  local function assign(index, node)
    add_units(parse_demand(bundles[index]), node.free, -1)
    node.changed = true
    used[node.id] = (used[node.id] or 0) + 1
    chosen[index] = node.id
  end
  local strict = string.sub(strategy, 1, 7) == 'STRICT_'
  local function choose(sorted)
    if string.sub(strategy, -4) == 'PACK' then return pack_bundles(bundles, sorted, nodes, used, strict, assign) end
    return spread_bundles(bundles, sorted, nodes, used, strict, assign)
  end
  local function give_up()
    for index, node in pairs(chosen) do
      credit(node, bundles[index], 1)
      used[node] = used[node] > 1 and used[node] - 1 or nil
    end
    chosen = {}
  end
  local sorted = hardest_first(bundles, open, nodes)
  if choose(sorted) then return chosen end
  give_up()
  if not strict and #open > 1 and fit_tightly(bundles, sorted, nodes, assign) then return chosen end
  give_up()
  return nil
end

local function words_of(text)
  local found = {}
  for word in string.gmatch(text or '', '%S+') do found[#found + 1] = word end
  return found
end

-- Ask nodes to set aside what a group lacks. Without room it waits. `except` is a node that has just refused.
local function place_group(id, except)
  local record = redis.call('HMGET', keys.group(id), fields.bundles, fields.places, fields.strategy, fields.attempt)
  if not record[1] then
    redis.call('ZREM', keys.waiting_groups, id)
    return true
  end
  local bundles, places, open, used = cjson.decode(record[1]), words_of(record[2]), {}, {}
  for index, node in ipairs(places) do
    if node == '-' then open[#open + 1] = index else used[node] = (used[node] or 0) + 1 end
  end
  local chosen = choose_nodes(bundles, open, used, record[3], except)
  if not chosen then return false end
  local shares, nodes, attempt = {}, {}, tonumber(record[4]) + 1
  for _, index in ipairs(open) do
    local node = chosen[index]
    places[index] = node
    if not shares[node] then
      shares[node] = {}
      nodes[#nodes + 1] = node
    end
    table.insert(shares[node], {index - 1, bundles[index]})
    add_units(parse_demand(bundles[index]), places_by_id[node].asked, 1)
  end
  for _, node in ipairs(nodes) do
    redis.call('SADD', keys.node_groups(node), id)
    post(node, words.MESSAGE_RESERVE, id, cmsgpack.pack({attempt, #nodes == 1 and 1 or 0, shares[node]}))
  end
  redis.call('ZREM', keys.waiting_groups, id)
  redis.call('HSET', keys.group(id), fields.attempt, attempt, fields.places, table.concat(places, ' '),
    fields.awaited, table.concat(nodes, ' '), fields.reserving, table.concat(open, ' '))
  return true
end

-- Who waits does so by age, so that a refusal costs no place in the line.
local function place_or_wait(id, urgent, except)
  if place_group(id, except) then return end
  redis.call('ZADD', keys.waiting_groups, urgent and 0 or redis.call('HGET', keys.group(id), fields.sequence), id)
end

-- Room may have appeared: try the groups that wait. Those that still find none let others have their turn.
local function place_waiting()
  local waiting = redis.call('ZRANGE', keys.waiting_groups, 0, limits.WAITING_GROUPS_TRIED - 1)
  if #waiting == 0 then return end
  local more = redis.call('ZCARD', keys.waiting_groups) > #waiting
  for _, id in ipairs(waiting) do
    if not place_group(id) and more then redis.call('ZADD', keys.waiting_groups, redis.call('INCR', keys.sequence), id) end
  end
  save_free()
end

-- The group is complete (or never will be): the objects that stand for that become ready.
local function tell_waiters(id, state, packed)
  local waiters = redis.call('SPOP', keys.group_waiters(id), limits.SLICE)
  for _, object in ipairs(waiters) do
    local key = keys.object(object)
    local record = redis.call('HMGET', key, fields.refs, fields.watched)
    if record[1] then
      redis.call('HSET', key, fields.state, state, fields.value, packed)
      wake(object, record[2], tonumber(record[1]) > 0, announcement(packed))
    end
  end
  if #waiters == limits.SLICE then redis.call('RPUSH', keys.chores, 'waiters:' .. id) end
end

-- The nodes in `awaited` need not answer any more.
local function unask_all(bundles, places, reserving, awaited)
  local asked = {}
  for _, node in ipairs(words_of(awaited)) do asked[node] = true end
  for _, word in ipairs(words_of(reserving)) do
    local index = tonumber(word)
    if asked[places[index]] then unask(places[index], bundles[index]) end
  end
end

-- An attempt to reserve is over without success: what was set aside for it is released. `refuser` has nothing to release.
local function withdraw(id, refuser)
  local record = redis.call('HMGET', keys.group(id), fields.bundles, fields.places, fields.reserving, fields.awaited)
  local bundles, places = cjson.decode(record[1]), words_of(record[2])
  unask_all(bundles, places, record[3], record[4])
  local dropped, kept = {}, {}
  for _, word in ipairs(words_of(record[3])) do
    local index = tonumber(word)
    local node = places[index]
    if node ~= '-' then
      dropped[node] = dropped[node] or {}
      table.insert(dropped[node], index - 1)
      if node ~= refuser then credit(node, bundles[index], 1) end
      places[index] = '-'
    end
  end
  for _, node in ipairs(places) do kept[node] = true end
  for node, indexes in pairs(dropped) do
    if node ~= refuser then post(node, words.MESSAGE_RELEASE, id, table.concat(indexes, ' ')) end
    if not kept[node] then redis.call('SREM', keys.node_groups(node), id) end
  end
  redis.call('HSET', keys.group(id), fields.places, table.concat(places, ' '), fields.awaited, '', fields.reserving, '')
end
