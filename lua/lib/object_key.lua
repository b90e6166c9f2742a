-- object_key: which hash carries the state of an object.

local function object_key(id)
  local index = string.sub(id, 25)
  if index == '00000000' then return keys.task(string.sub(id, 1, 24)) end
  if index == 'fffffffe' then return keys.actor(string.sub(id, 1, 24)) end
  return keys.object(id)
end
