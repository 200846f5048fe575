-- session, reason
local sid = ARGV[1]
if call('EXISTS', K.session(sid)) == 0 or expired(sid) then
  return { 'missing', 'session' }
end
local told = command(field(sid, 'edge'), 'close', sid, field(sid, 'generation'), ARGV[2])
if told == 'busy' then
  return { 'refused', 'busy', '1000 commands wait for this edge already' }
end
if not told then
  forget(sid)
else
  local pid = field(sid, 'pid')
  if pid ~= '' then
    call('DEL', K.pid(pid))
    call('HDEL', K.session(sid), 'pid')
  end
end
return { 'ok', told }
