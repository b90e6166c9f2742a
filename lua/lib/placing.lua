-- placing: which queue a ready task goes to, and which nodes may take from it.
-- @lazy
-- @include queue
-- @include offers
-- @include object_key

local totals_of_nodes = {}

-- Whether a node's resources would ever do, all of them free.
local function could_fit(node, demand)
  local totals = totals_of_nodes[node]
  if not totals then
    totals = {}
    for name, quantity in pairs(cjson.decode(redis.call('HGET', keys.node(node), fields.resources) or '{}')) do
      totals[name] = math.floor(quantity * 10000 + 0.5)
    end
    totals_of_nodes[node] = totals
  end
  return times_fit(demand, totals) > 0
end

local function lives(node)
  return redis.call('SISMEMBER', keys.nodes, node) == 1
end

local answers = {}

-- Whether some node of the cluster matches this alternative and could ever run the demand.
local function anybody_could(selector, demand)
  local question = selector .. ' ' .. demand
  if answers[question] == nil then
    local one = pinned_node(selector)
    answers[question] = false
    for _, node in ipairs(one and (lives(one) and {one} or {}) or redis.call('SMEMBERS', keys.nodes)) do
      if matches(node, selector) and could_fit(node, demand) then
        answers[question] = true
        break
      end
    end
  end
  return answers[question]
end

-- Whether another node that matches this alternative can be expected to take it at once.
local function another_comes(node, selector, demand)
  local one = pinned_node(selector)
  if one then return one ~= node and comes(one, demand) and matches(one, selector) end
  for other in pairs(offers()) do
    if other ~= node and comes(other, demand) and matches(other, selector) then return true end
  end
  return false
end

-- Whether a node may run now what waits there: an earlier alternative goes before a later one.
local function may_take(node, demand, where)
  local rest = where
  while rest and rest ~= '' do
    local selector, relation
    selector, relation, rest = first_choice(rest)
    if matches(node, selector) then return true end
    if relation == '>' and anybody_could(selector, demand) then return false end
    if relation == '~' and another_comes(node, selector, demand) then return false end
  end
  return where == ''
end

-- Whether a node might ever run what waits there.
local function may_ever_take(node, where)
  local rest = where
  while rest and rest ~= '' do
    local selector, _, others = first_choice(rest)
    rest = others
    if matches(node, selector) then return true end
  end
  return where == ''
end

-- Whether something waits that a node could take now, were it not for others that may be better.
local function has_work_for(node, free)
  for _, list in ipairs({keys.queues, keys.node_queues(node)}) do
    for _, name in ipairs(redis.call('ZRANGE', list, 0, limits.QUEUES_EXAMINED - 1)) do
      if times_fit(demand_of(name), free) > 0 and may_ever_take(node, where_of(name)) then return true end
    end
  end
  return false
end

-- Ring up to `count` idle nodes that may serve a queue: any that is less than half used, else the one that is used least.
local function ring_idle(name, count, except)
  local demand, where, fitting = demand_of(name), where_of(name), {}
  for node, offer in pairs(offers()) do
    if node ~= except and not offer.rung and times_fit(demand, offer.free) > 0 then
      fitting[#fitting + 1] = {node, math.max(0.5, used_share(offer))}
    end
  end
  if #fitting > 1 then
    table.sort(fitting, function(one, other) return one[2] < other[2] or (one[2] == other[2] and one[1] < other[1]) end)
  end
  for _, each in ipairs(fitting) do
    if count <= 0 then return end
    if may_take(each[1], demand, where) then
      ring(each[1])
      count = count - 1
    end
  end
end

-- The next in turn of the nodes that can take a task of this demand at once; nil when none can.
local function next_in_turn(demand, where)
  local found = {}
  for node in pairs(offers()) do
    if comes(node, demand) and may_take(node, demand, where) then found[#found + 1] = node end
  end
  if #found == 0 then return nil end
  table.sort(found)
  return found[redis.call('INCR', keys.spread) % #found + 1]
end

-- Of the nodes that could run a task, the one that has most of the bytes of its large arguments.
local function nearest(head)
  local bytes, best = {}, nil
  for _, id in ipairs(head[8]) do
    local object = redis.call('HMGET', object_key(id), fields.size, fields.at)
    for node in string.gmatch(object[2] or '', '%S+') do
      if could_fit(node, head[5]) then
        bytes[node] = (bytes[node] or 0) + tonumber(object[1] or 0)
        if not best or bytes[node] > bytes[best] then best = node end
      end
    end
  end
  if best and redis.call('SCARD', keys.nodes) > 1 and lives(best) then return best end
end

-- For this node first, for the others when it does not come.
local function offered_to(node, where)
  return only_on(node) .. '~' .. (where == '' and '*' or where)
end

-- Where a task waits for a node, of those it may run on. nil and a sentence when the only node for it is not there.
local function destination(head)
  local where, demand = head[17] or '', head[5]
  local spreads = string.sub(where, 1, 6) == 'SPREAD'
  if spreads then where = string.sub(where, 8) end
  local node = pinned_node(where)
  while node do
    local selector, relation, rest = first_choice(where)
    if relation == '~' then return where end
    if lives(node) and matches(node, selector) and could_fit(node, demand) then return selector end
    if not rest then
      local why = 'node ' .. node .. ', the only one it may run on (NodeAffinitySchedulingStrategy with soft=False, or a label), '
      if not lives(node) then return nil, why .. 'does not exist in the cluster, or not any more.' end
      return nil, why .. (matches(node, selector) and 'can never have ' .. demand .. ' free.' or 'does not match ' .. selector .. '.')
    end
    where = rest == '*' and '' or rest
    node = pinned_node(where)
  end
  if spreads or (head[2] == 1 and demand == '-') then
    node = next_in_turn(demand, where)
  elseif where == '' and head[2] == 0 and #head[8] > 0 then
    node = nearest(head)
  end
  return node and offered_to(node, where) or where
end

-- Queue a ready task. Returns the name of its queue, or nil and a sentence: no node can ever run it.
local function place_task(task, key, head, score)
  local where, refusal = destination(head)
  if not where then return nil, refusal end
  local name = queue_name(head[5], head[3], where)
  if where ~= '' then redis.call('HSET', key, fields.queue, name) end
  enqueue(name, task, score)
  return name
end

-- The same for a task that is nobody's turn now: when no node can run it, a chore ends it.
local function queue_task(task, key, head, score)
  local name = place_task(task, key, head, score)
  if name then ring_idle(name, 1) else redis.call('RPUSH', keys.chores, 'place:' .. task) end
end
