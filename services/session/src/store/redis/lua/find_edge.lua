-- number
local e = call('HGET', K.numbers, ARGV[1])
if not e or not lives(e) then
  return { 'missing', 'edge' }
end
return { 'ok', call('HGET', K.edge(e), 'addr') }
