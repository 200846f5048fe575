-- replica, entries at most, ms for which it has the outbox
local reader = call('GET', K.reader)
local boot = call('HMGET', K.boot, 'id', 'cut')
if reader and reader ~= ARGV[1] then
  return { 'ok', boot[1] or '', boot[2] or '0', {} }
end
call('SET', K.reader, ARGV[1], 'PX', ARGV[3])
local entries = {}
for _, entry in ipairs(call('XRANGE', K.outbox, '-', '+', 'COUNT', ARGV[2])) do
  local at = tonumber(string.match(entry[1], '^(%d+)'))
  -- Written in this order by `emit`.
  local f = entry[2]
  entries[#entries + 1] = { entry[1], text(math.max(now - at, 0)), f[2], f[4], f[6], f[8], f[10] }
end
return { 'ok', boot[1] or '', boot[2] or '0', entries }
