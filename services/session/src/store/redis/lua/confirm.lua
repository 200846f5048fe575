-- ids of published entries
return { 'ok', call('XDEL', K.outbox, unpack(ARGV)) }
