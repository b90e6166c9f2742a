-- inbox: messages to processes and nodes, gathered during a script and appended with one XADD per reader.
-- A message is three texts: kind, id, data. Values may be dropped for a reader that lags (it gets one "again" mark and asks);
-- everything else is always delivered.

local outboxes, addressees = {}, {}

local function post(reader, kind, id, data)
  local outbox = outboxes[reader]
  if not outbox then
    outbox = {}
    outboxes[reader] = outbox
    addressees[#addressees + 1] = reader
  end
  local size = #outbox
  outbox[size + 1], outbox[size + 2], outbox[size + 3] = kind, id or '', data or ''
end

local function is_full(inbox)
  if redis.call('XLEN', inbox) < limits.INBOX_ENTRIES then return false end
  local newest = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
  if newest[2][1] ~= words.MESSAGE_AGAIN then redis.call('XADD', inbox, '*', words.MESSAGE_AGAIN, '', '', '') end
  return true
end

local function send_mail()
  for _, reader in ipairs(addressees) do
    local kind = redis.call('HGET', keys.process(reader), fields.kind)
    local inbox, outbox = keys.inbox(reader), outboxes[reader]
    if kind and (kind == 'node' or not is_full(inbox)) then
      local step = limits.SLICE * 3
      for first = 1, #outbox, step do
        local last = math.min(first + step - 1, #outbox)
        -- A stream entry has pairs: an odd number of texts is filled up.
        if (last - first) % 2 == 0 then
          outbox[last + 1], outbox[last + 2] = '', outbox[last + 1]
          redis.call('XADD', inbox, '*', unpack(outbox, first, last + 1))
          outbox[last + 1] = outbox[last + 2]
        else
          redis.call('XADD', inbox, '*', unpack(outbox, first, last))
        end
      end
    end
  end
end
