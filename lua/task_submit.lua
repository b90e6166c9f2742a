-- task_submit: records a batch of new tasks; those their node starts itself as claimed, ready ones into queues, others as waiting.
--
-- Actor calls are in here too, because a caller's tasks and calls travel in one order: a call goes to its actor's node at once, or is
-- parked until the actor is alive.
--
-- KEYS
--   channel   hash     the submitting process
-- ARGV
--   worker    text     the submitting process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   claims    text     one letter per task: R running on the relaying node, C claimed by it, - for the cluster, L lost: a node that
--                      went away may have begun it, which costs an attempt
--   specs     rest     packed specs
-- RETURN
--   OK queued          how many of them are in queues or waiting
--   REPEAT reply
--   GAP last
--   FENCED
--   JOB_ENDED
-- @include channel
-- @include calls

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local heads = {}
for i = specs_at, #ARGV do
  local spec = ARGV[i]
  heads[#heads + 1] = cmsgpack.unpack(string.sub(spec, 5, 4 + struct.unpack('<I4', spec)))
end
if #heads == 0 or #heads ~= #claims then
  return redis.error_reply('ERR task_submit takes a letter for each of its tasks, not ' .. #claims .. ' for ' .. #heads .. '.')
end
if not job_runs(heads[1][3]) then return close_call(channel, number, {words.JOB_ENDED}) end

-- every check passed: first write
local ids, claimed, lost, held, queued, rung, refused = {}, {}, {}, {}, 0, {}, {}
local sequence = redis.call('INCRBY', keys.sequence, #heads) - #heads
local last_calls = {}
local former = string.find(claims, 'L', 1, true) and redis.call('HGET', channel, fields.former)
for i, head in ipairs(heads) do
  local task, claim, spec = head[1], string.sub(claims, i, i), ARGV[specs_at + i - 1]
  ids[#ids + 1] = task
  redis.call('SET', keys.spec(task), spec)
  local unpinned = pin(head)
  if head[2] == 2 then last_calls[head[14]] = head[15] end
  if head[2] == 2 and is_dead(head[14]) then
    orphan_call(head, unpinned) -- also one that the actor's node has started: it had not heard of the kill yet
  elseif claim == 'R' or claim == 'C' then
    claimed[#claimed + 1] = task
    create_task(head, claim == 'R' and words.RUNNING or words.CLAIMED, route, nil, unpinned)
  elseif claim == 'L' and (head[2] ~= 2 or is_lost_call(head[14], former)) then
    lost[#lost + 1] = {head, spec}
    create_task(head, words.CLAIMED, nil, nil, unpinned)
  elseif head[2] == 0 and is_homeless(head) then
    orphan_task(head, unpinned)
  elseif head[2] == 2 then
    submit_call(head, spec, unpinned, claim == 'L' and former)
  else
    local unready = register_dependent(head)
    queued = queued + 1
    if unready > 0 then
      create_task(head, words.WAITING, nil, unready, unpinned)
    else
      create_task(head, words.QUEUED, nil, nil, unpinned)
      local name, refusal = place_task(task, keys.task(task), head, queue_score(head[11], head[10], sequence + i))
      if name then rung[name] = (rung[name] or 0) + 1 else refused[#refused + 1] = {head, refusal} end
    end
  end
  hold_returns(head, held)
end
for actor, last in pairs(last_calls) do
  if redis.call('EXISTS', keys.actor(actor)) == 1 then redis.call('HSET', keys.callers(actor), worker, last) end
end
add_all('SADD', keys.job_tasks(heads[1][3]), ids)
add_all('SADD', keys.node_tasks(route), claimed)
add_all('SADD', keys.holds(worker), held)
for name, count in pairs(rung) do ring_idle(name, count, nil) end
for _, each in ipairs(refused) do end_unschedulable(each[1], each[2]) end
if #orphans > 0 then fail_orphans() end
for _, each in ipairs(lost) do
  local head = each[1]
  local text = 'Task ' .. head[1] .. ' (' .. head[4] .. ') was lost: its node has died before the task was recorded, and may have run it.'
  lose_attempt(head[1], keys.task(head[1]), head, each[2], head[7], text)
end
send_mail()
close_call(channel, number)
return {words.OK, queued}
