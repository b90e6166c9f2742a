-- lease_renew: a node or a driver without a node says that it lives, and learns whose lease has run out.
--
-- When nobody renewed for a while Redis itself was away: then nobody is named as expired for one whole lease.
--
-- FLAGS allow-oom
-- KEYS
--   leases    zset     member -> end of its lease
-- ARGV
--   member    text     node: or driver: and an id
--   now       ms       0 = the server's clock
--   free      text     a node's free resources, or ""
-- RETURN
--   OK expired chores queues nodes groups fits
--                      a member whose lease is over, or ""; how many chores wait, how many queues of ready work, how many nodes there are,
--                      how many placement groups wait for room; 1: the node should ask for work, because something waits that fits it
--   FENCED             this member was declared dead: it must stop and start as a new one
-- @include grace
-- @include place
-- @include placing

if not redis.call('ZSCORE', leases, member) then return {words.FENCED} end
local node = string.match(member, '^node:(.*)')
if node and redis.call('HGET', keys.node(node), fields.state) == words.DEAD then return {words.FENCED} end
local grace = grace_until(now)

-- every check passed: first write
redis.call('HSET', keys.tick, 'last', now, 'grace', grace)
redis.call('ZADD', leases, now + limits.LEASE_MS, member)
if node and free ~= '' then told_free(node, free) end
if node then
  place_waiting()
  send_mail()
end
local expired = ''
if now >= grace then expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1] or '' end
local queues = redis.call('ZCARD', keys.queues) + (node and redis.call('ZCARD', keys.node_queues(node)) or 0)
local fits = queues > 0 and node and has_work_for(node, parse_demand(free ~= '' and free or redis.call('HGET', keys.node(node), fields.free) or '-'))
return {words.OK, expired, redis.call('LLEN', keys.chores), queues, redis.call('SCARD', keys.nodes), redis.call('ZCARD', keys.waiting_groups),
  fits and 1 or 0}
