-- package_open: makes a job one that uses an uploaded package, and tells how much of it is there.
--
-- KEYS
--   channel   hash     the calling process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   package   text     its content hash
--   job       text     the job that uses it
--   size      int      bytes
--   parts     int      into how many parts it is cut
-- RETURN
--   OK have            the number of its first parts that are there
--   JOB_ENDED
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

if redis.call('HGET', keys.job(job), fields.state) ~= words.RUNNING then return close_call(channel, number, {words.JOB_ENDED}) end

-- every check passed: first write
local key = keys.package(package)
if redis.call('SADD', keys.job_packages(job), package) == 1 then redis.call('HINCRBY', key, fields.users, 1) end
redis.call('HSET', key, fields.size, size, fields.parts, parts)
return close_call(channel, number, {words.OK, tonumber(redis.call('HGET', key, fields.have) or 0)})
