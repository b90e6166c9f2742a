-- task_yield: publishes items of tasks that stream, for the processes that submitted these.
--
-- Fenced like a finish: by task, attempt and node. An item that was published before is passed over, unless it was lost.
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
--   yields    rest     packed: task, attempt, number of the first item from 1, items {{is inline, size, {contained ids}}};
--                      each followed by the values of its inline items
-- RETURN
--   OK answers         {items published, items taken or -1 = no more are wanted, items missing} for each, or {-1} = not this node's
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include streams

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end
local yields, problem = read_with_values(yields_at, 4)
if not yields then return redis.error_reply(problem) end

-- every check passed: first write
local answers = {}
for _, yield in ipairs(yields) do answers[#answers + 1] = record_items(worker, yield) end
release(dropped)
send_mail()
return close_call(channel, number, {words.OK, answers})
