-- queue: ready tasks, one sorted set per (demand, where it may run, job).
-- A queue's name is demand|job, or demand|where|job. Its place in keys.queues is the priority of its first task, then its turn: the number
-- of tasks it was served, so jobs share fairly. A queue of one node alone has its place in that node's list instead, where the others need
-- not look. Within a queue: highest priority first, then deepest nesting (a blocked parent waits for it), then first in, first out.
-- @lazy
-- @include resources
-- @include labels

local BAND = 35184372088832 -- 2^45: tasks of one priority, and in keys.queues the queues that begin with such a task

-- 8 bits of priority, 8 bits of depth, 37 bits of sequence: exact in a double.
local function queue_score(priority, depth, sequence)
  local nested = math.min(depth, 255)
  return (127 - priority) * BAND + (255 - nested) * 137438953472 + sequence
end

-- Scores below this are those of a band, or of more urgent ones: as an argument of a command.
local function end_of_band(band)
  return '(' .. string.format('%.0f', (band + 1) * BAND)
end

-- 0 is the most urgent.
local function band_of(score)
  return math.floor(score / BAND)
end

local function demand_of(name)
  return string.match(name, '^([^|]*)|')
end

-- '' for a queue that any node may serve.
local function where_of(name)
  return string.match(name, '^[^|]*|(.*)|') or ''
end

local function queue_name(demand, job, where)
  if where and where ~= '' then return demand .. '|' .. where .. '|' .. job end
  return demand .. '|' .. job
end

-- The queue of the same demand and job that any node may serve.
local function plain_name(name)
  return (string.gsub(name, '|.*|', '|'))
end

-- The sorted set that a queue has its place in.
local function list_of(name)
  local where = where_of(name)
  if where == '' then return keys.queues end
  local node = pinned_node(where)
  if node and not string.find(where, '[>~]') then return keys.node_queues(node) end
  return keys.queues
end

local GROUP_ID = '_group_(' .. string.rep('%x', 24) .. '):'

-- The placement group whose resources a demand names; see redray/resources.py.
local function group_of(demand)
  return string.find(demand, '_group_', 1, true) and string.match(demand, GROUP_ID)
end

-- A group knows the queues of what waits for it: they end with it. Behind one that has ended already comes a sweep.
local function note_group(name)
  local group = group_of(name)
  if not group then return end
  redis.call('SADD', keys.group_queues(group), name)
  local state = redis.call('HGET', keys.group(group), fields.state)
  if not state or state == words.REMOVED then redis.call('RPUSH', keys.chores, 'group:' .. group) end
end

-- Give a queue its place among those that begin with a task of the same priority: not before the first of them, because it must not be
-- owed the turns it did not use.
local function place_queue(name, band, served)
  local list = list_of(name)
  local first = redis.call('ZRANGEBYSCORE', list, band * BAND, end_of_band(band), 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then served = math.max(served, tonumber(first[2]) % BAND) end
  redis.call('ZADD', list, string.format('%.0f', band * BAND + served), name)
end

-- A queue lost tasks, `served` of them to a node. Returns whether it has more, and how urgent that is.
local function keep_place(name, served)
  local list = list_of(name)
  local first = redis.call('ZRANGE', keys.queue(name), 0, 0, 'WITHSCORES')
  if not first[2] then
    redis.call('ZREM', list, name)
    local group = group_of(name)
    if group then redis.call('SREM', keys.group_queues(group), name) end
    return false
  end
  local band = band_of(first[2])
  local place = tonumber(redis.call('ZINCRBY', list, served, name))
  if band_of(place) ~= band then
    redis.call('ZREM', list, name)
    place_queue(name, band, place % BAND)
  end
  return true, band
end

local function enqueue(name, task, score)
  local queue = keys.queue(name)
  note_group(name)
  redis.call('ZADD', queue, score, task)
  local first = redis.call('ZRANGE', queue, 0, 1, 'WITHSCORES')
  if first[1] ~= task then return end
  if not first[4] or band_of(first[4]) ~= band_of(score) then
    redis.call('ZREM', list_of(name), name)
    place_queue(name, band_of(score), 0)
  end
end

local function dequeue(name, task)
  if redis.call('ZREM', keys.queue(name), task) == 1 then keep_place(name, 0) end
end
