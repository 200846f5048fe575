-- incarnation, counter, connections, lease ms, rotation ms, candidate key, commands at most, then
-- numbers of commands that are done
local e = ARGV[1]
if not lives(e) then
  return { 'lost' }
end
meet_server()
call('ZADD', K.leases, 'XX', text(now + tonumber(ARGV[4])), e)
local before = call('HGET', K.edge(e), 'counter') or '0'
call('HSET', K.edge(e), 'counter', ARGV[2])
call('HSET', K.connections, e, ARGV[3])
for i = 8, #ARGV do
  call('ZREMRANGEBYSCORE', K.edge_commands(e), ARGV[i], ARGV[i])
end
local commands = call('ZRANGEBYSCORE', K.edge_commands(e), '-inf', '+inf', 'LIMIT', 0, tonumber(ARGV[7]))
local sum, living = 0, 0
for _, edge in ipairs(call('ZRANGEBYSCORE', K.leases, '(' .. text(now), '+inf')) do
  if edge == e or not call('HGET', K.edge(edge), 'replaced') then
    sum = sum + tonumber(call('HGET', K.connections, edge) or '0')
    living = living + 1
  end
end
local mean = text(math.floor(sum / math.max(living, 1)))
return { 'ok', before, mean, told_boot(), resume_keys(tonumber(ARGV[5]), ARGV[6]), commands }
