-- function_export: stores a pickled function or class, once for all jobs that use it.
--
-- KEYS
--   channel   hash     the exporting process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   id        text     its content hash
--   job       text     the job that uses it
--   name      text     for people
--   pickled   text     the pickle
--   contains  rest     ids of objects whose refs are inside
-- RETURN
--   OK
--   JOB_ENDED
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include references

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

if redis.call('HGET', keys.job(job), fields.state) ~= words.RUNNING then return close_call(channel, number, {words.JOB_ENDED}) end

-- every check passed: first write
if redis.call('SADD', keys.job_functions(job), id) == 1 and redis.call('HINCRBY', keys.fn(id), fields.users, 1) == 1 then
  redis.call('HSET', keys.fn(id), fields.name, name, fields.pickled, pickled)
  local inner = {}
  for i = contains_at, #ARGV do inner[#inner + 1] = ARGV[i] end
  contain(keys.fn(id), inner)
end
close_call(channel, number)
return {words.OK}
