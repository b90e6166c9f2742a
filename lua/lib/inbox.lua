-- inbox: messages to processes and nodes, gathered during a script and appended with one XADD per reader.
-- Values may be dropped for a reader that lags (it gets one "again" mark and asks); everything else is always delivered.

local outboxes, addressees = {}, {}

local function post(reader, message)
  local outbox = outboxes[reader]
  if not outbox then
    outbox = {}
    outboxes[reader] = outbox
    addressees[#addressees + 1] = reader
  end
  outbox[#outbox + 1] = message
end

local function send_mail()
  for _, reader in ipairs(addressees) do
    local kind = redis.call('HGET', keys.process(reader), fields.kind)
    if kind then
      local inbox, outbox = keys.inbox(reader), outboxes[reader]
      local full = kind ~= 'node' and redis.call('XLEN', inbox) >= limits.INBOX_ENTRIES
      if full then
        local newest = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
        local again = cmsgpack.pack({{words.MESSAGE_AGAIN}})
        if newest[2][2] ~= again then redis.call('XADD', inbox, '*', 'm', again) end
      elseif #outbox <= limits.SLICE then
        redis.call('XADD', inbox, '*', 'm', cmsgpack.pack(outbox))
      else
        for first = 1, #outbox, limits.SLICE do
          local slice = {}
          for i = first, math.min(first + limits.SLICE - 1, #outbox) do slice[#slice + 1] = outbox[i] end
          redis.call('XADD', inbox, '*', 'm', cmsgpack.pack(slice))
        end
      end
    end
  end
end
