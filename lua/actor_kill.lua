-- actor_kill: ends an actor at once; without restart it is dead, and its name free, before its process is.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the killing process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   actor     text     its id
--   final     int      1: no restart
--   cause     text     a sentence for those who call it
-- RETURN
--   OK
--   NOT_FOUND          no such actor is known any more
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include actors

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local record = redis.call('HMGET', keys.actor(actor), fields.state, fields.node)
if not record[1] then return close_call(channel, number, {words.NOT_FOUND}) end

-- every check passed: first write
local creating = redis.call('HGET', keys.task(actor), fields.node)
if final == 1 then bury(actor, cause) end
if record[2] ~= '' then
  post(record[2], words.MESSAGE_KILL, actor, cause)
elseif creating and creating ~= '' then
  post(creating, words.MESSAGE_KILL, actor, cause)
end
send_mail()
close_call(channel, number)
return {words.OK}
