-- task_finish: records how attempts ended, makes their values visible, wakes what waited, and hands the node its next work.
--
-- A finish is fenced by task, attempt and node: a late one is STALE and changes nothing.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the reporting node
-- ARGV
--   worker    text     the reporting node
--   route     text     "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   free      text     the node's free resources after these finishes, and of how many CPUs: see lib/offers
--   rooms     msgpack  {queue name: tasks that busy workers would take ahead}
--   limit     int      at most so many tasks
--   finishes  rest     packed: task, attempt, outcome, returns {{is inline, size, {contained ids}}}, borrower, {kept ids}, detail;
--                      each followed by the values of its inline returns
-- RETURN
--   OK stale work leftover  stale = {task, ...}; work and leftover as in task_claim, when work was asked for
--   REPEAT work
--   GAP last
--   FENCED
-- @include channel
-- @include hand_out
-- @include finish

local refusal = open_call(channel, worker, route, number, seen)
if refusal then
  if refusal[1] == words.REPEAT then refusal[2] = hand_again(worker, refusal[2]) end
  return refusal
end
local finishes, problem = read_with_values(finishes_at, 4)
if not finishes then return redis.error_reply(problem) end

-- every check passed: first write
local stale = {}
for _, finish in ipairs(finishes) do
  if not finish_attempt(worker, finish) then stale[#stale + 1] = finish[1] end
end
finish_all(worker)
local work, leftover = {}, {}
if limit > 0 then
  local claimed
  work, claimed, leftover = hand_out(worker, free, rooms, math.min(limit, limits.SLICE))
  send_mail()
  close_with_work(channel, number, claimed)
else
  send_mail()
  close_call(channel, number)
end
return {words.OK, stale, work, leftover}
