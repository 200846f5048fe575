-- session, name, hash of the canonical form, hash of the unique form or empty
local sid, name, canonical, unique = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('EXISTS', K.session(sid)) == 0 or expired(sid) then
  return { 'missing', 'session' }
end
local e = field(sid, 'edge')
local refused = claim(e, sid, unique, false)
if refused then
  return refused
end
local told = command(e, 'renamed', sid, '0', name)
if told == 'busy' then
  return { 'refused', 'busy', '1000 commands wait for this edge already' }
end
set_name(sid, name, canonical, unique)
return { 'ok', show(sid), told }
