-- channel: the numbered, ordered way of one process to Redis.
-- A call that was made before is answered REPEAT and does nothing, a call ahead of its turn GAP, a call of a process that is gone or
-- goes another way FENCED: so every script may be sent twice, and two routes can never interleave.

-- Returns nil when the call may go on, else the reply that the script must return at once.
local function open_call(channel, worker, route, number, seen)
  local record = redis.call('HMGET', channel, fields.last, fields.route, fields.reply)
  if not record[1] or record[2] ~= route then return {words.FENCED} end
  local last = tonumber(record[1])
  if number <= last then return {words.REPEAT, record[3] or ''} end
  if number > last + 1 then return {words.GAP, last} end
  if seen ~= '' then redis.call('XTRIM', keys.inbox(worker), 'MINID', seen) end
  return nil
end

local function close_call(channel, number)
  redis.call('HSET', channel, fields.last, number)
end
