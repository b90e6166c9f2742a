-- grace: when Redis itself was away nobody could renew a lease, so for one whole lease nobody is declared dead.

-- The end of the grace, 0 when there is none. A gap in the ticks that renewals leave begins one.
local function grace_until(now)
  local tick = redis.call('HMGET', keys.tick, 'last', 'grace')
  if tick[1] and now - tonumber(tick[1]) > limits.TICK_GAP_MS then return now + limits.LEASE_MS end
  return tonumber(tick[2] or '0')
end
