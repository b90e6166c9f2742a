-- actor_started: an actor's constructor has returned: it is alive on this node, which gets the calls that waited for it.
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
--   actor     text     its id
--   attempt   int      the attempt of the creation task
--   process   text     the worker that hosts it
-- RETURN
--   OK calls callers   calls = {{attempt, spec, news}, ...}, callers = {caller, last sequence, ...}
--   MORE calls         more calls wait: call again (with the next number) before anything else
--   STALE              it was killed, or started elsewhere, meanwhile
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include hand_out
-- @include calls

local key = keys.actor(actor)

local function answer(outcome, calls)
  if outcome == words.MORE then return {words.MORE, calls} end
  return {words.OK, calls, redis.call('HGETALL', keys.callers(actor))}
end

local refusal = open_call(channel, worker, route, number, seen)
if refusal then
  -- The reply carries calls, so a node that lost it must get them again.
  local kept = refusal[1] == words.REPEAT and redis.call('HGET', key, fields.reply)
  kept = kept and cmsgpack.unpack(kept)
  if kept and kept[1] == worker and kept[2] == number then return answer(kept[3], hand_again(worker, kept[4])) end
  return refusal
end

local creation = redis.call('HMGET', keys.task(actor), fields.node, fields.attempt)
local state = redis.call('HGET', key, fields.state)
local mine = creation[1] == worker and tonumber(creation[2]) == attempt
if not mine or (state ~= words.PENDING and state ~= words.RESTARTING) then return close_call(channel, number, {words.STALE}) end

-- every check passed: first write
local calls, claimed = {}, {}
for _, task in ipairs(take_parked(actor, limits.SLICE)) do
  redis.call('HSET', keys.task(task), fields.state, words.CLAIMED, fields.node, worker)
  claimed[#claimed + 1] = task
  calls[#calls + 1] = work_item(redis.call('HGET', keys.task(task), fields.attempt), head_of(task))
end
add_all('SADD', keys.node_tasks(worker), claimed)
local outcome = words.MORE
if redis.call('EXISTS', keys.parked(actor)) == 0 then
  outcome = words.OK
  redis.call('HSET', keys.task(actor), fields.state, words.FINISHED)
  redis.call('SREM', keys.node_tasks(worker), actor)
  redis.call('SREM', keys.job_tasks(redis.call('HGET', key, fields.job)), actor)
  redis.call('SADD', keys.node_actors(worker), actor)
  redis.call('HSET', key, fields.state, words.ALIVE, fields.node, worker, fields.worker, process)
  if redis.call('HGET', key, fields.refs) == '0' then post(worker, words.MESSAGE_RETIRE, actor) end
end
redis.call('HSET', key, fields.reply, cmsgpack.pack({worker, number, outcome, claimed}))
send_mail()
close_call(channel, number)
return answer(outcome, calls)
