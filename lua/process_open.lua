-- process_open: opens a process' channel, or moves an open one to another route; a driver's first call also starts its job.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the process
-- ARGV
--   worker    text     its id
--   route     text     the node it goes through, or "direct"
--   now       ms       0 = the server's clock
--   kind      text     driver, worker or node
--   job       text     the job it works for, or ""
--   pid       int      its process id
--   namespace text     a driver's namespace
--   config    text     packed job configuration for workers (sys.path and so on)
-- RETURN
--   OK last            the number of the last call that was recorded
--   FENCED             the process ended, or its node was declared dead

if route ~= 'direct' and redis.call('SISMEMBER', keys.nodes, route) == 0 then return {words.FENCED} end
local record = redis.call('HMGET', channel, fields.last, fields.route, fields.state)
if record[3] == words.ENDED then return {words.FENCED} end
if kind == 'driver' and redis.call('HGET', keys.job(job), fields.state) == words.ENDED then return {words.FENCED} end

-- every check passed: first write
if record[2] and record[2] ~= route and record[2] ~= 'direct' then
  redis.call('SREM', keys.node_processes(record[2]), worker)
  redis.call('HSET', channel, fields.former, record[2])
end
redis.call('HSET', channel, fields.kind, kind, fields.route, route, fields.job, job, fields.pid, pid)
if not record[1] then redis.call('HSET', channel, fields.last, 0, fields.started, now) end
if route == 'direct' then
  if kind == 'driver' then redis.call('ZADD', keys.leases, now + limits.LEASE_MS, 'driver:' .. worker) end
else
  redis.call('SADD', keys.node_processes(route), worker)
  redis.call('ZREM', keys.leases, 'driver:' .. worker)
end
if kind == 'driver' and redis.call('EXISTS', keys.job(job)) == 0 then
  redis.call('HSET', keys.job(job), fields.state, words.RUNNING, fields.driver, worker, fields.namespace, namespace,
    fields.config, config, fields.started, now)
  redis.call('SADD', keys.jobs, job)
end
return {words.OK, tonumber(record[1] or '0')}
