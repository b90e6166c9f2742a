-- publish: a value that an attempt brought becomes visible.
-- @include task_record

-- Ids that nothing refers to any more: released at the end of the script.
local dropped = {}

local function inflight(record, node, attempt)
  return record[2] == node and tonumber(record[3]) == attempt
    and (record[1] == words.CLAIMED or record[1] == words.RUNNING)
end

-- Publish one return value; `watched`, `refs` are the object's own.
local function publish(id, key, state, returned, node, watched, refs)
  local inline, size, contains = returned[1], returned[2], returned[3]
  local value_at = nil
  if inline then
    redis.call('HSET', key, fields.state, state, fields.value, inline)
  else
    value_at = node
    redis.call('HSET', key, fields.state, state, fields.size, size, fields.at, node)
    redis.call('SADD', keys.node_objects(node), id)
  end
  if #contains > 0 then contain(key, contains) end
  -- Of an error the maker hears even if it let the value go: nobody else would tell its user.
  wake(id, watched, refs > 0 or state == words.FAILED, announcement(inline, size, value_at))
end

-- The same for a value that may be there already (only a sibling was lost and computed again), or not be wanted any more.
local function publish_if_missing(id, key, state, returned, node)
  local object = redis.call('HMGET', key, fields.refs, fields.watched, fields.at)
  if object[1] and not object[3] and redis.call('HEXISTS', key, fields.value) == 0 then
    publish(id, key, state, returned, node, object[2], tonumber(object[1]))
    return object[1]
  end
  if not returned[1] and not string.find(object[3] or '', node, 1, true) then post(node, words.MESSAGE_FREE, id) end
end

-- Structures in ARGV, each followed by the values of the inline returns that its element `place` lists. Nil and a sentence if one lacks.
local function read_with_values(at, place)
  local found = {}
  while at <= #ARGV do
    local entry = cmsgpack.unpack(ARGV[at])
    at = at + 1
    for _, returned in ipairs(entry[place]) do
      if returned[1] then
        if not ARGV[at] then return nil, 'ERR the report on task ' .. entry[1] .. ' lacks the value of an inline return.' end
        returned[1] = ARGV[at]
        at = at + 1
      end
    end
    found[#found + 1] = entry
  end
  return found
end
