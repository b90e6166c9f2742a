-- node_register: a node joins the cluster, under an id that was never used before.
--
-- FLAGS allow-oom
-- KEYS
--   node      hash     the node's record
--   channel   hash     the node's channel
-- ARGV
--   id        text     the node's id: its incarnation
--   now       ms       0 = the server's clock
--   pid       int      its process id
--   facts     msgpack  {field: text}: address, host, socket, resources, labels, version
-- RETURN
--   OK nodes           ids of the nodes there are now
--   EXISTS             this id has been used
-- @include place

if redis.call('EXISTS', node) == 1 then return {words.EXISTS} end

-- every check passed: first write
for name, text in pairs(facts) do redis.call('HSET', node, name, text) end
redis.call('HSET', node, fields.state, words.ALIVE, fields.started, now, fields.pid, pid)
redis.call('HSET', channel, fields.kind, 'node', fields.route, 'direct', fields.last, 0, fields.pid, pid)
for _, other in ipairs(redis.call('SMEMBERS', keys.nodes)) do post(other, words.MESSAGE_JOINED, id) end
redis.call('SADD', keys.nodes, id)
redis.call('ZADD', keys.leases, now + limits.LEASE_MS, 'node:' .. id)
place_waiting()
send_mail()
return {words.OK, redis.call('SMEMBERS', keys.nodes)}
