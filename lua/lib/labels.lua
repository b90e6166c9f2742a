-- labels: which nodes a task may run on, as text: alternatives, the best first, each a list of conditions on a node's labels.
--   zone=a,b&disk!=hdd&gpu&!spot    zone is a or b, disk is not hdd (or there is none), there is a label gpu, and none called spot
--   *                               any node
--   A>B                             B only while no node of the cluster that matches A could ever run it
--   A~B                             B when no node that matches A can take it at once
-- Keys and values are percent-encoded where they hold other signs. See redray/where.py, which writes and reads the same.
-- @lazy

local NODE_ID = 'ray.io/node-id'

-- The condition that one node alone meets.
local function only_on(node)
  return NODE_ID .. '=' .. node
end

local function plain(text)
  if not string.find(text, '%', 1, true) then return text end
  return (string.gsub(text, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end))
end

local function parse_condition(text)
  local key, operator, list = string.match(text, '^([^!=]+)(!?=)(.*)$')
  if not key then
    local absent = string.match(text, '^!(.*)$')
    return {key = plain(absent or text), exists = not absent}
  end
  local values = {}
  for value in string.gmatch(list .. ',', '([^,]*),') do values[plain(value)] = true end
  return {key = plain(key), values = values, negated = operator == '!='}
end

local parsed_selectors = {}

-- One alternative: text -> {condition, ...}
local function parse_selector(text)
  local parsed = parsed_selectors[text]
  if parsed then return parsed end
  parsed = {}
  if text ~= '*' then
    for condition in string.gmatch(text, '[^&]+') do parsed[#parsed + 1] = parse_condition(condition) end
  end
  parsed_selectors[text] = parsed
  return parsed
end

-- The one node that the first alternative names, if it names one.
local function pinned_node(where)
  local node, following = string.match(where, '^ray%.io/node%-id=([^,&>~]*)(.?)')
  if following ~= ',' then return node end
end

local known_labels = {}

-- {label = value} of a node; one that is gone has only its id.
local function labels_of(node)
  local labels = known_labels[node]
  if labels then return labels end
  local text = redis.call('HGET', keys.node(node), fields.labels)
  labels = text and text ~= '' and cjson.decode(text) or {}
  labels[NODE_ID] = node
  known_labels[node] = labels
  return labels
end

local function matches(node, selector)
  if selector == '*' then return true end
  local one = pinned_node(selector)
  if one and one ~= node then return false end
  if selector == only_on(node) then return true end
  local labels = labels_of(node)
  for _, condition in ipairs(parse_selector(selector)) do
    local label = labels[condition.key]
    local holds
    if condition.values then holds = (label ~= nil and condition.values[label] or false) ~= condition.negated
    else holds = (label ~= nil) == condition.exists end
    if not holds then return false end
  end
  return true
end

-- The first alternative, how the others follow it (nil, '>' or '~'), and the others.
local function first_choice(where)
  local first, relation, rest = string.match(where, '^([^>~]*)([>~])(.*)$')
  return first or where, relation, rest
end
