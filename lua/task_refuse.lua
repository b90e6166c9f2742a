-- task_refuse: ends a task that waits in a queue, or for its actor, with an error: its node can never start it.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the refusing node
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   task      text     its id
--   reason    text     a sentence for those who want its value
-- RETURN
--   OK
--   STALE              it does not wait (any more)
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include calls

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local key = keys.task(task)
local record = redis.call('HMGET', key, fields.state, fields.job)
local head = head_of(task)
if record[1] ~= words.QUEUED or not head or head[2] == 1 then return close_call(channel, number, {words.STALE}) end

-- every check passed: first write
unqueue(task, head)
end_task(task, key, record[2], head, words.FAILED, system_error('RaySystemError', reason))
send_mail()
close_call(channel, number)
return {words.OK}
