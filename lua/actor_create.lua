-- actor_create: registers an actor, claims its name, and queues its creation task.
--
-- KEYS
--   channel   hash     the creating process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   spec      text     packed spec of the creation task, whose id is the actor's
--   record    msgpack  name, namespace, class, detached (1 or 0), max_restarts, max_task_retries
--   methods   text     opaque: what handles made by name need to know
-- RETURN
--   OK
--   EXISTS actor       the name is taken by that actor
--   JOB_ENDED
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include actors

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local head = cmsgpack.unpack(string.sub(spec, 5, 4 + struct.unpack('<I4', spec)))
local actor, job = head[1], head[3]
local full_name = record[2] .. '/' .. record[1]
local creator_job = redis.call('HGET', channel, fields.job)
if not creator_job or creator_job == '' then creator_job = job end
if not job_runs(creator_job) then return close_call(channel, number, {words.JOB_ENDED}) end
if record[1] ~= '' then
  local other = redis.call('HGET', keys.actor_names, full_name)
  if other then return close_call(channel, number, {words.EXISTS, other}) end
end

-- every check passed: first write
local detached = record[4]
redis.call('HSET', keys.actor(actor), fields.state, words.PENDING, fields.name, record[1], fields.namespace, record[2],
  fields.class, record[3], fields.job, job, fields.creator, worker, fields.detached, detached, fields.max_restarts, record[5],
  fields.restarts, 0, fields.max_task_retries, record[6], fields.methods, methods, fields.refs, 1 + detached,
  fields.function, head[13], fields.node, '', fields.started, now)
if record[1] ~= '' then redis.call('HSET', keys.actor_names, full_name, actor) end
if detached == 1 then
  -- A job of its own: its nested work and its class outlive the driver.
  local origin = redis.call('HMGET', keys.job(creator_job), fields.config, fields.namespace)
  redis.call('HSET', keys.job(job), fields.state, words.RUNNING, fields.namespace, origin[2] or '', fields.config, origin[1] or '',
    fields.detached, 1, fields.started, now)
  redis.call('SADD', keys.jobs, job)
  if redis.call('EXISTS', keys.fn(head[13])) == 1 and redis.call('SADD', keys.job_functions(job), head[13]) == 1 then
    redis.call('HINCRBY', keys.fn(head[13]), fields.users, 1)
  end
  for _, package in ipairs(head[16] and head[16].packages or {}) do
    local is_there = redis.call('EXISTS', keys.package(package)) == 1
    if is_there and redis.call('SADD', keys.job_packages(job), package) == 1 then
      redis.call('HINCRBY', keys.package(package), fields.users, 1)
    end
  end
end
redis.call('SADD', keys.job_actors(job), actor)
if detached == 0 and redis.call('HGET', channel, fields.kind) == 'worker' then redis.call('SADD', keys.created(worker), actor) end
redis.call('SADD', keys.holds(worker), actor .. 'fffffffe')
redis.call('SET', keys.spec(actor), spec)
local unpinned = pin(head)
redis.call('SADD', keys.job_tasks(job), actor)
local unready = register_dependent(head)
if unready > 0 then
  create_task(head, words.WAITING, nil, unready, unpinned)
else
  create_task(head, words.QUEUED, nil, nil, unpinned)
  local score = queue_score(head[11], head[10], redis.call('INCR', keys.sequence))
  local name, refusal = place_task(actor, keys.task(actor), head, score)
  if name then ring_idle(name, 1) else bury_unschedulable(actor, refusal) end
end
if is_homeless(head) then bury_homeless(actor, group_of(head[5])) end
send_mail()
close_call(channel, number)
return {words.OK}
