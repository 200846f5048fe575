local leases = 0
for _, e in ipairs(call('ZRANGEBYSCORE', K.leases, '(' .. text(now), '+inf')) do
  if lives(e) then
    leases = leases + 1
  end
end
return { 'ok', call('ZCARD', K.sessions), leases, call('XLEN', K.outbox) }
