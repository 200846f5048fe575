-- hash of a canonical name or empty, edge or empty, id after which the page begins, sessions at most
local named, e, after, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local index = K.sessions
if named ~= '' then
  index = K.named(named)
elseif e ~= '' then
  index = K.edge_sessions(e)
end
local from = after == '' and '-' or '(' .. after
local ids = call('ZRANGEBYLEX', index, from, '+', 'LIMIT', 0, limit + 1)
local sessions, rooms, last = {}, 0, ''
for i, sid in ipairs(ids) do
  -- A page is bounded by what it holds, too.
  if i > limit or rooms > 1500 then
    return { 'ok', sessions, last }
  end
  if e == '' or field(sid, 'edge') == e then
    local session = show(sid)
    rooms = rooms + #session[8]
    sessions[#sessions + 1] = session
  end
  last = sid
end
return { 'ok', sessions, '' }
