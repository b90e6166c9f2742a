-- package_write: stores one part of a package. Anybody may send it, any number of times: the same part is the same bytes.
--
-- KEYS
--   package   hash     the package, which package_open has made
-- ARGV
--   index     int      of the part, from 0
--   data      text     its bytes
-- RETURN
--   OK have            the number of its first parts that are there
--   NOT_FOUND          no job uses the package (any more)

local record = redis.call('HMGET', package, fields.parts, fields.have)
if not record[1] then return {words.NOT_FOUND} end
if index < 0 or index >= tonumber(record[1]) then
  return redis.error_reply('ERR the package has ' .. record[1] .. ' parts, and no part ' .. index .. '.')
end

-- every check passed: first write
local have = tonumber(record[2] or 0)
redis.call('HSET', package, index, data)
if index == have then have = redis.call('HINCRBY', package, fields.have, 1) end
return {words.OK, have}
