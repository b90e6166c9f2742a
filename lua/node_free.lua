-- node_free: a node says what is free, and placement groups that wait for room are tried.
--
-- FLAGS allow-oom
-- KEYS
--   node      hash     the node's record
-- ARGV
--   id        text     its id
--   free      text     its free resources
--   groups    text     those of the placement groups on it
-- RETURN
--   OK waiting         how many placement groups wait
--   FENCED             it was declared dead
-- @include place

if redis.call('HGET', node, fields.state) ~= words.ALIVE then return {words.FENCED} end

-- every check passed: first write
redis.call('HSET', node, fields.free_groups, groups)
told_free(id, free)
place_waiting()
send_mail()
return {words.OK, redis.call('ZCARD', keys.waiting_groups)}
