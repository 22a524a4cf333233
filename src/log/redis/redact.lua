-- Takes what a message said away: what is left of it takes its place. A stream's entry can't be changed, so it goes.
--
-- ARGV: 6 the epoch that the message is of, 7 its offset, 8 what is left of it
trim()
local offset = tonumber(ARGV[7])
if epoch ~= ARGV[6] or offset < first or offset > top then
  return 0
end
if redis.call('HSET', hash, '~' .. number(offset), ARGV[8]) == 1 then
  redis.call('HSET', hash, 'gone', number(gone + 1))
  redis.call('XDEL', stream, number(offset) .. '-0')
end
return 1
