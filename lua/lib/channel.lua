-- channel: the numbered, ordered way of one process to Redis.
-- A call that was made before is answered REPEAT and does nothing, a call ahead of its turn GAP, a call of a process that is gone or
-- goes another way FENCED: so every script may be sent twice, and two routes can never interleave.

local acknowledged = nil

-- Returns nil when the call may go on, else the reply that the script must return at once. Writes nothing: at maxmemory 6.2 refuses a
-- script only until its first write.
local function open_call(channel, worker, route, number, seen)
  local record = redis.call('HMGET', channel, fields.last, fields.route, fields.reply)
  if not record[1] or record[2] ~= route then return {words.FENCED} end
  local last = tonumber(record[1])
  if number <= last then
    local kept = record[3] and cmsgpack.unpack(record[3])
    return kept and kept[1] == number and kept[2] or {words.REPEAT, ''}
  end
  if number > last + 1 then return {words.GAP, last} end
  if seen ~= '' then acknowledged = {keys.inbox(worker), seen} end
  return nil
end

-- `reply`, when given, is kept for a caller that asks again because it never got it.
local function close_call(channel, number, reply)
  if acknowledged then redis.call('XTRIM', acknowledged[1], 'MINID', acknowledged[2]) end
  if reply then
    redis.call('HSET', channel, fields.last, number, fields.reply, cmsgpack.pack({number, reply}))
  else
    redis.call('HSET', channel, fields.last, number)
  end
  return reply
end
