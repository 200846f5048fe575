-- incarnation, counter, connections (empty: not to be counted), lease ms, rotation ms, candidate key, commands at
-- most, then numbers of commands that are done
local e = ARGV[1]
if not lives(e) then
  return { 'lost' }
end
meet_server()
call('ZADD', K.leases, 'XX', text(now + tonumber(ARGV[4])), e)
local before = call('HGET', K.edge(e), 'counter') or '0'
call('HSET', K.edge(e), 'counter', ARGV[2])
if ARGV[3] == '' then
  call('HDEL', K.connections, e)
else
  call('HSET', K.connections, e, ARGV[3])
end
for i = 8, #ARGV do
  call('ZREMRANGEBYSCORE', K.edge_commands(e), ARGV[i], ARGV[i])
end
local commands = call('ZRANGEBYSCORE', K.edge_commands(e), '-inf', '+inf', 'LIMIT', 0, tonumber(ARGV[7]))
local sum, counted = 0, 0
for _, edge in ipairs(call('ZRANGEBYSCORE', K.leases, '(' .. text(now), '+inf')) do
  local told = call('HGET', K.connections, edge)
  if told and not call('HGET', K.edge(edge), 'replaced') then
    sum = sum + tonumber(told)
    counted = counted + 1
  end
end
local mean = text(math.floor(sum / math.max(counted, 1)))
return { 'ok', before, mean, text(counted), told_boot(), resume_keys(tonumber(ARGV[5]), ARGV[6]), commands }
