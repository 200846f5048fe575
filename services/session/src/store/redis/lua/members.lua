-- room, user after whom the page begins, members at most (0: only the count)
local room, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = call('ZCARD', K.room_users(room))
if limit == 0 then
  return { 'ok', count, {}, '' }
end
local from = after == '' and '-' or '(' .. after
local users = call('ZRANGEBYLEX', K.room_users(room), from, '+', 'LIMIT', 0, limit + 1)
local members = {}
for i = 1, math.min(#users, limit) do
  local _, name = parse_presence(call('HGET', K.room(room), users[i]) or '0:')
  members[#members + 1] = { users[i], name }
end
return { 'ok', count, members, #users > limit and users[limit] or '' }
