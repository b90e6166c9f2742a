-- resources: demands and free resources are text like CPU:1,GPU:0.5 ('-' is nothing); see redray/resources.py.

local parsed_demands = {}

-- text -> {name = units of 1/10000}
local function parse_demand(text)
  local parsed = parsed_demands[text]
  if parsed then return parsed end
  parsed = {}
  if text ~= '-' then
    for name, quantity in string.gmatch(text, '([^,]+):([%-%d%.]+)') do
      parsed[name] = math.floor(tonumber(quantity) * 10000 + 0.5)
    end
  end
  parsed_demands[text] = parsed
  return parsed
end

-- How many times `demand` (text) fits into `free` (a parsed table). The empty demand fits without end.
local function times_fit(demand, free)
  local times = limits.SLICE
  for name, units in pairs(parse_demand(demand)) do
    times = math.min(times, math.floor((free[name] or 0) / units))
  end
  return math.max(times, 0)
end
