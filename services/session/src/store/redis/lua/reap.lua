-- recovery window ms, sessions and presences at most
local window_ms, budget = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = call('ZRANGEBYSCORE', K.expiring, '-inf', text(now), 'LIMIT', 0, budget)
for _, sid in ipairs(due) do
  forget(sid)
end
local more = #due == budget and 1 or 0
local e = call('ZRANGEBYSCORE', K.leases, '-inf', text(now), 'LIMIT', 0, 1)[1]
if not e then
  return { 'ok', 0, 0, 0, more }
end
local sessions = call('ZRANGE', K.edge_sessions(e), 0, budget - 1)
for _, sid in ipairs(sessions) do
  finish(e, sid, '0', window_ms)
end
local presences = 0
while presences < budget do
  local room = call('SRANDMEMBER', K.edge_rooms(e))
  if not room then
    break
  end
  local users = call('SPOP', K.room_edge(room, e), budget - presences)
  for _, user in ipairs(users) do
    count_down(room, user)
  end
  presences = presences + #users
  if call('EXISTS', K.room_edge(room, e)) == 0 then
    call('SREM', K.edge_rooms(e), room)
  end
end
if #sessions == budget or presences >= budget then
  return { 'ok', 0, #sessions, presences, 1 }
end
local number = call('HGET', K.edge(e), 'number')
if number and call('HGET', K.numbers, number) == e then
  call('HDEL', K.numbers, number)
end
call('DEL', K.edge(e), K.edge_commands(e), K.edge_sessions(e), K.edge_rooms(e))
call('HDEL', K.connections, e)
call('ZREM', K.leases, e)
return { 'ok', 1, #sessions, presences, 1 }
