-- task_running: claimed tasks that have started, said late and in batches: only long tasks are worth the words.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the node
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   tasks     rest     ids
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

-- every check passed: first write
for i = tasks_at, #ARGV do
  local key = keys.task(ARGV[i])
  local record = redis.call('HMGET', key, fields.state, fields.node)
  if record[1] == words.CLAIMED and record[2] == worker then redis.call('HSET', key, fields.state, words.RUNNING) end
end
close_call(channel, number)
return {words.OK}
