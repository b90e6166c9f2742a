-- process_end: a process has left, or is gone: nothing more is taken from it, and what it held is released.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the process
-- ARGV
--   worker    text     its id
--   route     text     who says so: its node, or "direct"
--   now       ms       0 = the server's clock
--   crashed   int      1: it did not leave in order
-- RETURN
--   OK
--   FENCED             it goes another way now
-- @include endings

local current = redis.call('HGET', channel, fields.route)
if current and current ~= route then return {words.FENCED} end

-- every check passed: first write
end_process(worker, crashed == 1)
send_mail()
return {words.OK}
