-- driver_reap: ends a driver without a node whose lease is over: anybody may call it.
--
-- FLAGS allow-oom
-- KEYS
--   channel   hash     the driver
-- ARGV
--   worker    text     its id
--   now       ms       0 = the server's clock
-- RETURN
--   DONE               it is ended, or goes through a node now
--   GRACE              Redis was away: nobody is declared dead yet
--   NOT_YET            its lease is not over
-- @include endings
-- @include grace

local lease = redis.call('ZSCORE', keys.leases, 'driver:' .. worker)
if not lease then return {words.DONE} end
if tonumber(lease) > now then return {words.NOT_YET} end
if now < grace_until(now) then return {words.GRACE} end

-- every check passed: first write
redis.call('ZREM', keys.leases, 'driver:' .. worker)
end_process(worker)
send_mail()
return {words.DONE}
