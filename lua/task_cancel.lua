-- task_cancel: tasks that have not been claimed end as cancelled; for one that has, cancel is a request to its node.
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
--   how       text     words: "force" (a worker may be killed), "recursive" (what a task has submitted, too)
--   parent    text     the cancelled task that submitted them, or "": then force spares actors' calls, instead of being refused
--   tasks     rest     ids, at most 100
-- RETURN
--   OK state ...       of each task after this call, "" for one that ended and that nobody refers to
--   REFUSED            force was asked for an actor's call: its worker has the state of the actor
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include calls

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local force, records, heads = string.find(how, 'force', 1, true), {}, {}
for i = tasks_at, #ARGV do
  local record = redis.call('HMGET', keys.task(ARGV[i]), fields.state, fields.node, fields.job, fields.kind)
  if record[1] == words.QUEUED or record[1] == words.WAITING then
    heads[ARGV[i]] = head_of(ARGV[i])
  elseif FINAL[record[1]] then
    record[4] = nil
  end
  if force and parent == '' and record[4] == '2' then return close_call(channel, number, {words.REFUSED}) end
  records[#records + 1] = record
end

-- every check passed: first write
local reply = {words.OK}
local spared = string.find(how, 'recursive', 1, true) and 'recursive' or ''
for i, record in ipairs(records) do
  local task = ARGV[tasks_at + i - 1]
  local head = heads[task]
  if head and head[2] ~= 1 then
    unqueue(task, head)
    local text = 'Task ' .. task .. ' (' .. head[4] .. ') was cancelled.'
    end_task(task, keys.task(task), record[3], head, words.CANCELLED, system_error('TaskCancelledError', text, {task_id = task}))
    record[1] = words.CANCELLED
  elseif record[1] == words.CLAIMED or record[1] == words.RUNNING then
    post(record[2], words.MESSAGE_CANCEL, task, record[4] == '2' and spared or how)
  end
  reply[#reply + 1] = record[1] or ''
end
send_mail()
close_call(channel, number)
return reply
