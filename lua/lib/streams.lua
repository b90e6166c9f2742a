-- streams: a task whose values come one by one. Its first return value is the stream's end; item k is its return value k.
-- Beside what every task has, its hash says how many `items` were published, how many the reader has `taken` (where that bounds the
-- task), how many were lost and are `missing`, that no more are wanted or will come (`closed`), and that an item was `large`.
-- @lazy
-- @include publish

local function item_id(task, index)
  return task .. string.format('%08x', index)
end

-- Items are published for the process that submitted the task, and for no other.
local function reader_lives(task)
  local process = redis.call('HMGET', keys.process(string.sub(task, 1, 16)), fields.kind, fields.state)
  return process[1] and process[2] ~= words.ENDED
end

-- An item that was not there before: it is the reader's, who need not say so.
local function publish_new(task, index, state, returned, node, held)
  local id = item_id(task, index)
  local key, inline, size, value_at = keys.object(id), returned[1], returned[2], nil
  if inline then
    redis.call('HSET', key, fields.refs, 1, fields.state, state, fields.value, inline)
  else
    value_at = node
    redis.call('HSET', key, fields.refs, 1, fields.state, state, fields.size, size, fields.at, node)
    redis.call('SADD', keys.node_objects(node), id)
  end
  if #returned[3] > 0 then contain(key, returned[3]) end
  wake(id, nil, true, announcement(inline, size, value_at))
  held[#held + 1] = id
end

local function add_items(task, key, items, held)
  if #held == 0 then return end
  redis.call('HSET', key, fields.items, items)
  redis.call('HINCRBY', key, fields.alive, #held)
  add_all('SADD', keys.holds(string.sub(task, 1, 16)), held)
end

-- yield = {task, attempt, number of the first item, items}; without items it only asks. Returns {items published, items taken or -1 when
-- no more are wanted, items missing}; {-1} when the attempt is not this node's (any more).
local function record_items(node, yield)
  local task, first, returns = yield[1], yield[3], yield[4]
  local key = keys.task(task)
  local record = redis.call('HMGET', key, fields.state, fields.node, fields.attempt, fields.items, fields.taken, fields.missing,
    fields.closed, fields.returns)
  if not inflight(record, node, yield[2]) or record[8] ~= '-1' then return {-1} end
  local items, missing, held = tonumber(record[4] or 0), tonumber(record[6] or 0), {}
  local known = items
  local wanted = not record[7] and reader_lives(task)
  for offset, returned in ipairs(returns) do
    local index = first + offset - 1
    if index <= known then
      local refs = publish_if_missing(item_id(task, index), keys.object(item_id(task, index)), words.READY, returned, node)
      if refs then missing = redis.call('HINCRBY', key, fields.missing, -1) end
      if refs == '0' then dropped[#dropped + 1] = item_id(task, index) end
    elseif wanted then
      publish_new(task, index, words.READY, returned, node, held)
      items = index
    elseif not returned[1] then
      post(node, words.MESSAGE_FREE, item_id(task, index))
    end
    if not returned[1] then redis.call('HSET', key, fields.large, 1) end
  end
  add_items(task, key, items, held)
  if first == 1 and #returns == 0 and missing > 0 then redis.call('HSET', key, fields.anew, yield[2]) end
  return {items, wanted and tonumber(record[5] or 0) or -1, missing}
end

-- Items that were lost, and that nobody will compute again.
local function give_up_missing(task, key)
  if tonumber(redis.call('HGET', key, fields.missing) or 0) > 0 then redis.call('RPUSH', keys.chores, 'lost:' .. task .. ' 1') end
end

-- True when the task must run once more: items that its last attempt had passed over were lost meanwhile.
local function must_run_anew(key, record, head)
  local stream = redis.call('HMGET', key, fields.missing, fields.anew)
  return tonumber(stream[1] or 0) > 0 and stream[2] ~= record[3] and head[2] == 0 and record[7] ~= '0' and job_runs(record[4])
end

-- An error of the generator's body is one more item; so the end itself is no error.
local function add_error(task, key, returned, node)
  local record = redis.call('HMGET', key, fields.items, fields.closed)
  if record[2] or not reader_lives(task) then return end
  local items, held = tonumber(record[1] or 0) + 1, {}
  publish_new(task, items, words.FAILED, returned, node, held)
  add_items(task, key, items, held)
end

local function give_up_item(task, id)
  local key = keys.object(id)
  local object = redis.call('HMGET', key, fields.state, fields.watched, fields.refs)
  if object[1] ~= words.PENDING then return end
  local packed = system_error('ObjectLostError', 'Object ' .. id .. ' is lost: the node that had it has died, and it cannot be computed again.')
  redis.call('HINCRBY', keys.task(task), fields.missing, -1)
  redis.call('HSET', key, fields.state, words.LOST, fields.value, packed)
  wake(id, object[2], object[3] ~= '0', announcement(packed))
  if object[3] == '0' then release({id}) end
end
