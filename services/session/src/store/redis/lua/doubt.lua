-- grace ms
-- The server is another one than before, or was started anew: names whose writing it has lost are not given
-- away before their living holders, whom the next heartbeat tells so, could tell them again.
if call('EXISTS', K.boot) == 1 and not in_doubt() then
  doubt_names(tonumber(ARGV[1]))
end
return { 'ok' }
