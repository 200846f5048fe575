local call = redis.call

local function text(number)
  return string.format('%.0f', number)
end

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- What an incarnation holds still counts, also while its successor registers it again.
local function holds(e)
  local deadline = e ~= '' and call('ZSCORE', K.leases, e)
  return deadline and tonumber(deadline) > now
end

-- The incarnation may act.
local function lives(e)
  return holds(e) and not call('HGET', K.edge(e), 'replaced')
end

local function in_grace()
  local grace = call('HGET', K.boot, 'grace')
  return grace and tonumber(grace) > now
end

-- Names may have been lost with the server that held them.
local function in_doubt()
  local doubt = call('HGET', K.boot, 'doubt')
  return doubt and tonumber(doubt) > now
end

local function doubt_names(grace_ms)
  call('HSET', K.boot, 'doubt', text(now + grace_ms))
end

-- A section of what the server says of itself; empty where its user may not ask.
local function info(section)
  local answer = redis.pcall('INFO', section)
  return type(answer) == 'string' and answer or ''
end

local met = false

-- The data remembers which server wrote it. Another one, a replica that was promoted or a server that was
-- started anew, may lack the last writes; scripts that it knows from an earlier time as master prove nothing.
local function meet_server()
  if met then
    return
  end
  met = true
  -- Data of a release that did not write it says nothing of its server either.
  local grace_ms = tonumber(call('HGET', K.boot, 'name_grace') or '')
  if not grace_ms then
    return
  end
  local replication = info('replication')
  local history, earlier = string.match(replication, 'master_replid:(%x+)'), string.match(replication, 'master_replid2:(%x+)')
  local before = call('HGET', K.boot, 'server')
  if not history or history == before then
    return
  end
  local run = string.match(info('server'), 'run_id:(%x+)') or ''
  -- A server that gets its first replica begins a new history, and knows of no earlier one as the promoted do:
  -- nothing is lost.
  local same = run ~= '' and run == call('HGET', K.boot, 'run') and earlier and not string.find(earlier, '[^0]')
  call('HSET', K.boot, 'server', history, 'run', run)
  if before and not same then
    doubt_names(grace_ms)
  end
end

-- What edges compare with what they knew: another one when the data was lost, or when some of it may have been.
-- Who sees another one registers anew and tells all that it holds.
local function told_boot()
  return (call('HGET', K.boot, 'id') or '') .. (call('HGET', K.boot, 'doubt') or '')
end

-- Two keys, newest first; a new one when there is none or the newest is old.
local function resume_keys(rotation_ms, candidate)
  local generations = {}
  for _, generation in ipairs(call('HKEYS', K.keys)) do
    generations[#generations + 1] = tonumber(generation)
  end
  table.sort(generations, function(a, b) return a > b end)
  local made = tonumber(call('HGET', K.boot, 'keys_at') or '0')
  if #generations > 0 and made == 0 then
    call('HSET', K.boot, 'keys_at', text(now))
    made = now
  end
  if #generations == 0 or now >= made + rotation_ms then
    local newest = (generations[1] or 0) + 1
    call('HSET', K.keys, text(newest), candidate)
    call('HSET', K.boot, 'keys_at', text(now))
    table.insert(generations, 1, newest)
  end
  while #generations > 2 do
    call('HDEL', K.keys, text(table.remove(generations)))
  end
  local answer = {}
  for _, generation in ipairs(generations) do
    answer[#answer + 1] = text(generation)
    answer[#answer + 1] = call('HGET', K.keys, text(generation))
  end
  return answer
end

-- Keeps a command until the edge confirms it; false when the edge does not live, 'busy' when too
-- many wait.
local function command(e, kind, sid, generation, detail)
  if not lives(e) then
    return false
  end
  if call('ZCARD', K.edge_commands(e)) >= 1000 then
    return 'busy'
  end
  local number = call('HINCRBY', K.boot, 'commands', 1)
  local body = cjson.encode({ text(number), kind, sid, generation, detail })
  call('ZADD', K.edge_commands(e), number, body)
  return { e, told_boot(), body }
end

local function show(sid)
  local fields = call('HMGET', K.session(sid), 'user', 'name', 'edge', 'generation', 'at', 'protocol')
  return { sid, fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], call('HKEYS', K.session_rooms(sid)) }
end

local function expired(sid)
  local at = call('ZSCORE', K.expiring, sid)
  return at and tonumber(at) <= now
end

local function field(sid, name)
  return call('HGET', K.session(sid), name) or ''
end

local function release(sid, unique)
  if unique ~= '' and call('GET', K.unique(unique)) == sid then
    call('DEL', K.unique(unique))
  end
end

-- Makes the session the holder of a unique name; nil, or why not. What an edge asserts again is
-- allowed during the grace after a loss of the data.
local function claim(e, sid, unique, re_assert)
  if unique == '' then
    return nil
  end
  local holder = call('GET', K.unique(unique))
  if holder and holder ~= sid and field(holder, 'unique') == unique and holds(field(holder, 'edge')) then
    return { 'refused', 'username_taken', 'somebody has this name, or one that looks like it' }
  end
  meet_server()
  local returning = re_assert and call('HGET', K.edge(e), 'replaces')
  if holder ~= sid and not returning and (in_grace() or in_doubt()) then
    return { 'refused', 'busy', 'names are being restored; try again in a few seconds' }
  end
  call('SET', K.unique(unique), sid)
  return nil
end

local function set_name(sid, name, canonical, unique)
  local before = call('HMGET', K.session(sid), 'canonical', 'unique')
  if before[1] and before[1] ~= canonical then
    call('ZREM', K.named(before[1]), sid)
  end
  if before[2] and before[2] ~= unique then
    release(sid, before[2])
  end
  call('HSET', K.session(sid), 'name', name, 'canonical', canonical, 'unique', unique)
  if canonical ~= '' then
    call('ZADD', K.named(canonical), 0, sid)
  end
end

-- Removes every trace of a session but its presence, which its edge counts.
local function forget(sid)
  local fields = call('HMGET', K.session(sid), 'edge', 'pid', 'canonical', 'unique')
  if fields[1] and fields[1] ~= '' then
    call('ZREM', K.edge_sessions(fields[1]), sid)
  end
  if fields[2] then
    call('DEL', K.pid(fields[2]))
  end
  if fields[3] then
    call('ZREM', K.named(fields[3]), sid)
  end
  release(sid, fields[4] or '')
  call('DEL', K.session(sid), K.session_rooms(sid), K.session_left(sid))
  call('ZREM', K.sessions, sid)
  call('ZREM', K.expiring, sid)
end

-- Ends the session on this edge: it is forgotten, or recoverable for a while.
local function finish(e, sid, generation, recoverable_ms)
  local fields = call('HMGET', K.session(sid), 'edge', 'generation', 'pid', 'unique')
  if fields[1] ~= e then
    call('ZREM', K.edge_sessions(e), sid)
    return
  end
  if generation ~= '0' and generation ~= fields[2] then
    return
  end
  if recoverable_ms == 0 or not fields[3] then
    forget(sid)
    return
  end
  call('HSET', K.session(sid), 'edge', '')
  call('ZADD', K.expiring, now + recoverable_ms, sid)
  call('ZREM', K.edge_sessions(e), sid)
  release(sid, fields[4] or '')
end

local function emit(kind, room, user, name, previous)
  call('XADD', K.outbox, '*', 'kind', kind, 'room', room, 'user', user, 'name', name, 'previous', previous)
  local over = call('XLEN', K.outbox) - 10000
  if over > 0 then
    call('XTRIM', K.outbox, 'MAXLEN', 10000)
    call('HINCRBY', K.boot, 'cut', over)
  end
end

local function parse_presence(value)
  local edges, name = string.match(value, '^(%d+):(.*)$')
  return tonumber(edges), name
end

local function enter(e, room, user, name)
  local new_here = call('SADD', K.room_edge(room, e), user)
  if new_here == 1 then
    call('SADD', K.edge_rooms(e), room)
  end
  local silent = call('HGET', K.edge(e), 'replaces') and in_grace()
  local known = call('HGET', K.room(room), user)
  if not known then
    call('HSET', K.room(room), user, '1:' .. name)
    call('ZADD', K.room_users(room), 0, user)
    if not silent then
      emit('joined', room, user, name, '')
    end
    return
  end
  local edges, before = parse_presence(known)
  if new_here == 1 or before ~= name then
    call('HSET', K.room(room), user, text(edges + new_here) .. ':' .. name)
  end
  if before ~= name and not silent then
    emit('renamed', room, user, name, before)
  end
end

-- The user was removed from the room's set of one edge.
local function count_down(room, user)
  local known = call('HGET', K.room(room), user)
  if not known then
    return
  end
  local edges, name = parse_presence(known)
  if edges > 1 then
    call('HSET', K.room(room), user, text(edges - 1) .. ':' .. name)
    return
  end
  call('HDEL', K.room(room), user)
  call('ZREM', K.room_users(room), user)
  emit('left', room, user, name, '')
end

local function exit(e, room, user)
  if call('SREM', K.room_edge(room, e), user) == 0 then
    return
  end
  if call('EXISTS', K.room_edge(room, e)) == 0 then
    call('SREM', K.edge_rooms(e), room)
  end
  count_down(room, user)
end
