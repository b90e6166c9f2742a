-- task_cancel: a task that has not been claimed ends as cancelled; for one that has, cancel is a request to its node.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the cancelling process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   task      text     its id
--   force     int      1: the node may kill the worker
-- RETURN
--   OK state           the task's state after this call
--   NOT_FOUND          it ended and nobody refers to it
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include calls

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local key = keys.task(task)
local record = redis.call('HMGET', key, fields.state, fields.node, fields.job)
if not record[1] then return close_call(channel, number, {words.NOT_FOUND}) end
local head = head_of(task)

-- every check passed: first write
local waits = record[1] == words.QUEUED or record[1] == words.WAITING
if waits and head[2] ~= 1 then
  unqueue(task, head)
  local text = 'Task ' .. task .. ' (' .. head[4] .. ') was cancelled.'
  end_task(task, key, record[3], head, words.CANCELLED, system_error('TaskCancelledError', text))
  record[1] = words.CANCELLED
elseif record[1] == words.CLAIMED or record[1] == words.RUNNING then
  post(record[2], words.MESSAGE_CANCEL, task, force)
end
send_mail()
close_call(channel, number)
return {words.OK, record[1]}
