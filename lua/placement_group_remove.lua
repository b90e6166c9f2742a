-- placement_group_remove: ends a placement group. What waits in it fails, what runs in it is killed by its nodes.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the removing process
-- ARGV
--   worker    text     the calling process
--   route     text     the node that relays, or "direct"
--   number    int      the call's number on the channel
--   seen      text     inbox position to trim to, or ""
--   now       ms       0 = the server's clock
--   id        text     the group's id
-- RETURN
--   OK removed         1, or 0: there is no such group (any more)
--   REPEAT reply
--   GAP last
--   FENCED
-- @include channel
-- @include groups

local refusal = open_call(channel, worker, route, number, seen)
if refusal then return refusal end

-- every check passed: first write
local removed = remove_group(id)
if removed then
  place_waiting()
  save_free()
end
send_mail()
close_call(channel, number)
return {words.OK, removed and 1 or 0}
