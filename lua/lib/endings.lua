-- endings: what happens when a process ends: its channel closes at once, what it held is released as chores.
-- @lazy
-- @include actors

local function end_process(worker, crashed)
  local key = keys.process(worker)
  local record = redis.call('HMGET', key, fields.kind, fields.job, fields.route, fields.state)
  if not record[1] or record[4] == words.ENDED then return end
  redis.call('HSET', key, fields.state, words.ENDED, fields.route, '', fields.crashed, crashed and 1 or 0)
  redis.call('ZREM', keys.leases, 'driver:' .. worker)
  if record[3] ~= 'direct' then redis.call('SREM', keys.node_processes(record[3]), worker) end
  redis.call('RPUSH', keys.chores, 'process:' .. worker)
  if record[1] == 'driver' then
    redis.call('HSET', keys.job(record[2]), fields.state, words.ENDED)
    redis.call('RPUSH', keys.chores, 'job:' .. record[2])
  end
end
