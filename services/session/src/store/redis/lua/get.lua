-- session
if call('EXISTS', K.session(ARGV[1])) == 0 or expired(ARGV[1]) then
  return { 'missing', 'session' }
end
return { 'ok', show(ARGV[1]) }
