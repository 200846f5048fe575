-- incarnation, addr, replaces, wanted number, candidate boot, lease ms, grace ms, rotation ms,
-- candidate key, then candidates for the number up to 'keys', then generation and key pairs
local e, addr, replaces, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease_ms, grace_ms, rotation_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
if call('EXISTS', K.edge(e)) == 1 and not lives(e) then
  return { 'lost' }
end
if call('HSETNX', K.boot, 'id', ARGV[5]) == 1 then
  call('HSET', K.boot, 'at', text(now))
end
call('HSET', K.boot, 'name_grace', ARGV[7])
meet_server()
local replaced_number = replaces ~= '' and call('HGET', K.edge(replaces), 'number')
local until_then = tonumber(call('HGET', K.boot, 'at')) + grace_ms
if replaces ~= '' and not replaced_number and now < until_then then
  -- An edge that the store has never seen, though it had a lease: the data was lost.
  call('HSET', K.boot, 'grace', text(until_then))
end
if replaced_number then
  number = replaced_number
  call('HSET', K.edge(replaces), 'replaced', '1')
  call('ZADD', K.leases, 'XX', text(now + lease_ms), replaces)
end
number = call('HGET', K.edge(e), 'number') or number
local i = 10
local function taken(candidate)
  local holder = call('HGET', K.numbers, candidate)
  return candidate == '0' or (holder and holder ~= e and holder ~= replaces)
end
while taken(number) and ARGV[i] ~= 'keys' do
  number = ARGV[i]
  i = i + 1
end
if taken(number) then
  return { 'refused', 'busy', 'no edge number is free; try again' }
end
while ARGV[i] ~= 'keys' do
  i = i + 1
end
for pair = i + 1, #ARGV, 2 do
  call('HSETNX', K.keys, ARGV[pair], ARGV[pair + 1])
end
local keys = resume_keys(rotation_ms, ARGV[9])
call('HSET', K.numbers, number, e)
call('HSET', K.edge(e), 'number', number, 'addr', addr)
call('HSETNX', K.edge(e), 'counter', '0')
if replaces ~= '' then
  call('HSET', K.edge(e), 'replaces', replaces)
end
call('ZADD', K.leases, text(now + lease_ms), e)
return { 'ok', number, told_boot(), keys }
