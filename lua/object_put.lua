-- object_put: makes a value that a process put visible, held by that process.
--
-- KEYS
--   channel   hash     the putting process
-- ARGV
--   worker    text     the putting process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   object    text     its id
--   inline    text     the packed value, or "" when it lies in a node's shared memory
--   size      int      bytes
--   node      text     the node that has it, or ""
--   contains  rest     ids of objects whose refs are inside
-- RETURN
--   OK
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include settle

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

local node_lives = node == '' or redis.call('SISMEMBER', keys.nodes, node) == 1

-- every check passed: first write
local key = keys.object(object)
redis.call('HSET', key, fields.state, words.READY, fields.refs, 1)
if node == '' then
  redis.call('HSET', key, fields.value, inline)
elseif node_lives then
  redis.call('HSET', key, fields.size, size, fields.at, node)
  redis.call('SADD', keys.node_objects(node), object)
else
  -- The process outlived its node, and brings what it had told that node only.
  redis.call('HSET', key, fields.state, words.LOST, fields.value,
    system_error('ObjectLostError', 'Object ' .. object .. ' is lost: the node that had it died before it was recorded.'))
end
local inner = {}
for i = contains_at, #ARGV do inner[#inner + 1] = ARGV[i] end
contain(key, inner)
redis.call('SADD', keys.holds(worker), object)
send_mail()
close_call(channel, number)
return {words.OK}
