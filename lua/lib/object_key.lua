-- object_key: which hash carries the state of an object.

-- Not a return value of the task whose number it carries.
local function is_put(id)
  return string.sub(id, 25) == 'ffffffff'
end

local function object_key(id)
  local index = string.sub(id, 25)
  if index == '00000000' then return keys.task(string.sub(id, 1, 24)) end
  if index == 'fffffffe' then return keys.actor(string.sub(id, 1, 24)) end
  return keys.object(id)
end
