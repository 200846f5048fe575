-- Every key of the store, spelt here and nowhere else. All begin with one hash tag: one slot, so a
-- script is atomic on a cluster too. Texts of users are no part of a key: names come as hashes.
-- `E` is an edge incarnation, `edge#random`; rooms have no `#`, so no two keys are the same.
local T = '{plaza}:'
local K = {
  boot = T .. 'boot',                                         -- hash: id, at, server, run, name_grace, grace, doubt, keys_at, commands, cut
  leases = T .. 'leases',                                     -- zset: E -> deadline in ms
  keys = T .. 'keys',                                         -- hash: generation -> resume key
  numbers = T .. 'numbers',                                   -- hash: edge number -> E
  connections = T .. 'connections',                           -- hash: E -> connections
  sessions = T .. 'sessions',                                 -- zset by id: every session
  expiring = T .. 'expiring',                                 -- zset: session -> end of its recovery window
  outbox = T .. 'ev',                                         -- stream: joined, left, renamed
  reader = T .. 'ev:reader',                                  -- string: the replica that publishes
  edge = function(e) return T .. 'e:' .. e end,               -- hash: number, addr, counter, replaces, replaced
  edge_commands = function(e) return T .. 'ec:' .. e end,     -- zset: command -> its number
  edge_sessions = function(e) return T .. 'es:' .. e end,     -- zset by id: sessions held there
  edge_rooms = function(e) return T .. 'er:' .. e end,        -- set: rooms with users present there
  session = function(s) return T .. 's:' .. s end,            -- hash: see `show`
  session_rooms = function(s) return T .. 'sr:' .. s end,     -- hash: room -> position of the join
  session_left = function(s) return T .. 'sl:' .. s end,      -- list: rooms left, the newest 16 first
  pid = function(p) return T .. 'p:' .. p end,                -- string: session of a recovery key
  unique = function(h) return T .. 'n:' .. h end,             -- string: session that holds a unique name
  named = function(h) return T .. 'c:' .. h end,              -- zset by id: sessions with a canonical name
  room = function(r) return T .. 'r:' .. r end,               -- hash: user -> edges:name
  room_users = function(r) return T .. 'ru:' .. r end,        -- zset by id: users present
  room_edge = function(r, e) return T .. 're:' .. e .. ':' .. r end, -- set: users present on that edge
}
