-- incarnation, then operations one after the other: a kind and its fields
local e = ARGV[1]
if not lives(e) then
  return { 'lost' }
end
local commands = {}

local function gone()
  return { 'refused', 'not_found', 'there is no such session on this edge' }
end

local function held(sid)
  return call('HGET', K.session(sid), 'edge') == e
end

local function hold(sid)
  local before = field(sid, 'edge')
  if before ~= '' and before ~= e then
    call('ZREM', K.edge_sessions(before), sid)
  end
  call('HSET', K.session(sid), 'edge', e)
  call('ZADD', K.edge_sessions(e), 0, sid)
  call('ZREM', K.expiring, sid)
end

local function open(sid, user, protocol, pid, name, canonical, unique)
  local known = call('HMGET', K.session(sid), 'user', 'edge')
  if known[1] then
    if known[1] ~= user then
      return { 'refused', 'forbidden', 'the session belongs to another user' }
    end
    if known[2] ~= e and lives(known[2]) then
      return { 'refused', 'not_found', 'the session lives on another edge by now' }
    end
    if expired(sid) then
      forget(sid)
      known = {}
    end
  end
  local refused = claim(e, sid, unique, true)
  if refused then
    return refused
  end
  if not known[1] then
    call('HSET', K.session(sid), 'user', user, 'generation', '1', 'at', text(now), 'protocol', protocol, 'name', '')
    call('ZADD', K.sessions, 0, sid)
  end
  if pid ~= '' then
    local before = field(sid, 'pid')
    if before ~= '' and before ~= pid then
      call('DEL', K.pid(before))
    end
    call('HSET', K.session(sid), 'pid', pid)
    call('SET', K.pid(pid), sid)
  end
  hold(sid)
  if name ~= '' then
    set_name(sid, name, canonical, unique)
  end
  return { 'session', show(sid) }
end

local function recover(pid, sid, user)
  local nothing = { 'refused', 'not_found', 'there is nothing to recover' }
  if pid ~= '' then
    sid = call('GET', K.pid(pid))
  end
  if not sid or expired(sid) then
    return nothing
  end
  local known = call('HMGET', K.session(sid), 'user', 'edge', 'generation', 'pid', 'unique', 'name')
  if user == '' then
    user = 's:' .. sid
  end
  if known[1] ~= user or not known[4] then
    return nothing
  end
  call('HINCRBY', K.session(sid), 'generation', 1)
  if known[2] ~= e then
    local close = command(known[2], 'replace', sid, known[3], '')
    if type(close) == 'table' then
      commands[#commands + 1] = close
    end
  end
  hold(sid)
  -- The name is the session's again, unless somebody has claimed it meanwhile.
  if known[5] and known[5] ~= '' and claim(e, sid, known[5], true) then
    set_name(sid, '', '', '')
  end
  local positions = call('HGETALL', K.session_rooms(sid))
  for _, room in ipairs(call('LRANGE', K.session_left(sid), 0, -1)) do
    positions[#positions + 1] = room
    positions[#positions + 1] = ''
  end
  return { 'recovered', show(sid), positions }
end

local function join(sid, room, position)
  if not held(sid) then
    return gone()
  end
  local rooms = K.session_rooms(sid)
  if call('HLEN', rooms) >= 100 and call('HEXISTS', rooms, room) == 0 then
    return { 'refused', 'too_many_rooms', 'the session is in 100 rooms; at most 100 are allowed' }
  end
  call('HSET', rooms, room, position)
  call('LREM', K.session_left(sid), 0, room)
  return { 'done' }
end

local function leave(sid, room)
  if not held(sid) then
    return gone()
  end
  if call('HDEL', K.session_rooms(sid), room) == 1 then
    call('LPUSH', K.session_left(sid), room)
    call('LTRIM', K.session_left(sid), 0, 15)
  end
  return { 'done' }
end

local function rename(sid, name, canonical, unique)
  if not held(sid) then
    return gone()
  end
  local refused = claim(e, sid, unique, false)
  if refused then
    return refused
  end
  set_name(sid, name, canonical, unique)
  return { 'session', show(sid) }
end

local function close(sid, generation, recoverable_ms, pid)
  sid = pid == '' and sid or call('GET', K.pid(pid))
  if not sid then
    return { 'done' }
  end
  finish(e, sid, generation, tonumber(recoverable_ms))
  return { 'done' }
end

local function present(room, user, name)
  enter(e, room, user, name)
  return { 'done' }
end

local function absent(room, user)
  exit(e, room, user)
  return { 'done' }
end

-- A kind, how many fields it has, and what does it.
local kinds = {
  open = { 7, open }, recover = { 3, recover }, join = { 3, join }, leave = { 2, leave }, rename = { 4, rename },
  close = { 4, close }, present = { 3, present }, absent = { 2, absent },
}

local results, i = {}, 2
while i <= #ARGV do
  local kind = kinds[ARGV[i]]
  results[#results + 1] = kind[2](unpack(ARGV, i + 1, i + kind[1]))
  i = i + 1 + kind[1]
end
return { 'ok', results, commands }
