-- task_consume: the reader of a stream says how many items it has taken, for a task that waits for that; or that it wants no more.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the reading process
-- ARGV
--   worker    text     the reading process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   task      text     its id
--   taken     int      items taken; -1: the reader is gone
--   heard     int      items that the reader has heard of, and lets go of by itself
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include streams

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local key = keys.task(task)
local record = redis.call('HMGET', key, fields.state, fields.node, fields.items, fields.returns)

-- every check passed: first write
if record[4] == '-1' and string.sub(task, 1, 16) == worker then
  if taken >= 0 then
    redis.call('HSET', key, fields.taken, taken)
  else
    redis.call('HSET', key, fields.closed, 1)
    if tonumber(record[3] or 0) > heard then redis.call('RPUSH', keys.chores, 'unread:' .. task .. ' ' .. heard + 1) end
  end
  if record[1] == words.CLAIMED or record[1] == words.RUNNING then post(record[2], words.MESSAGE_TAKEN, task, taken) end
end
send_mail()
close_call(channel, number)
return {words.OK}
