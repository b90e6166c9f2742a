-- queue: ready tasks, one sorted set per (demand, job), and who gets them.
-- A queue's name is demand|job. Its place in keys.queues is its turn: the number of tasks it was served, so jobs share fairly. Within a
-- queue: highest priority first, then deepest nesting (a blocked parent waits for it), then first in, first out.
-- @include resources

-- 8 bits of priority, 8 bits of depth, 37 bits of sequence: exact in a double.
local function queue_score(priority, depth, sequence)
  local nested = math.min(depth, 255)
  return (127 - priority) * 35184372088832 + (255 - nested) * 137438953472 + sequence
end

local function queue_name(demand, job)
  return demand .. '|' .. job
end

local function enqueue(name, task, score)
  local queue = keys.queue(name)
  if redis.call('ZADD', queue, score, task) == 1 and redis.call('ZCARD', queue) == 1 then
    -- A queue that was empty must not be owed the turns it did not use.
    local first = redis.call('ZRANGE', keys.queues, 0, 0, 'WITHSCORES')
    redis.call('ZADD', keys.queues, 'NX', first[2] or 0, name)
  end
end

local function dequeue(name, task)
  local queue = keys.queue(name)
  redis.call('ZREM', queue, task)
  if redis.call('EXISTS', queue) == 0 then redis.call('ZREM', keys.queues, name) end
end

-- Ring up to `count` idle nodes which a demand fits.
local function ring_idle(demand, count, except)
  local rung = 0
  local idle = redis.call('HGETALL', keys.idle)
  for i = 1, #idle, 2 do
    if rung >= count then return end
    if idle[i] ~= except and times_fit(demand, parse_demand(idle[i + 1])) > 0 then
      redis.call('HDEL', keys.idle, idle[i])
      post(idle[i], words.MESSAGE_RING)
      rung = rung + 1
    end
  end
end
