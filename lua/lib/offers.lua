-- offers: the nodes that wait for work, with what each has free: `CPU:2,GPU:0.5 of 4`, where 4 are all its CPUs.
-- One that was rung is on its way: `CPU:2 of 4 rung 1700000000000` (ms). It counts for a moment only, because it may not be able to come.
-- @include resources
-- @include inbox

-- {free = {name = units}, cpus = units of CPU in all or nil, rung = ms or nil, text}
local function parse_offer(text)
  local rung = string.match(text, ' rung (%d+)$')
  local offer = rung and string.match(text, '^(.*) rung') or text
  local free, cpus = string.match(offer, '^(%S+) of ([%d%.]+)$')
  return {text = offer, free = parse_demand(free or offer), cpus = cpus and tonumber(cpus) * 10000, rung = tonumber(rung)}
end

local known_offers = nil

local function offers()
  if not known_offers then
    known_offers = {}
    local idle = redis.call('HGETALL', keys.idle)
    for i = 1, #idle, 2 do known_offers[idle[i]] = parse_offer(idle[i + 1]) end
  end
  return known_offers
end

local clock = nil

local function clock_ms()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- Whether a node can be expected to take a task of this demand at once.
local function comes(node, demand)
  local offer = offers()[node]
  if not offer or times_fit(demand, offer.free) == 0 then return false end
  return not offer.rung or clock_ms() - offer.rung < limits.RUNG_MS
end

-- The share of a node's CPUs that is in use.
local function used_share(offer)
  if not offer.cpus or offer.cpus == 0 then return 0 end
  return 1 - (offer.free.CPU or 0) / offer.cpus
end

local function ring(node)
  local offer = offers()[node]
  offer.rung = clock_ms()
  redis.call('HSET', keys.idle, node, offer.text .. ' rung ' .. string.format('%.0f', offer.rung))
  post(node, words.MESSAGE_RING)
end

local function free_as_text(free)
  local parts = {}
  for name, units in pairs(free) do
    if units > 0 then parts[#parts + 1] = name .. ':' .. units / 10000 end
  end
  return #parts > 0 and table.concat(parts, ',') or '-'
end

-- What the node has after this call: nil when it cannot take more.
local function write_offer(node, free, cpus)
  if free then
    local text = free_as_text(free) .. (cpus and ' of ' .. cpus / 10000 or '')
    redis.call('HSET', keys.idle, node, text)
    if known_offers then known_offers[node] = parse_offer(text) end
  else
    redis.call('HDEL', keys.idle, node)
    if known_offers then known_offers[node] = nil end
  end
end

-- Whether any node but this one waits for work.
local function others_wait(node, waits_itself)
  if not known_offers then return redis.call('HLEN', keys.idle) > (waits_itself and 1 or 0) end
  for other in pairs(known_offers) do
    if other ~= node then return true end
  end
  return false
end
