-- Gives a message its place, once, and sends it to the nodes that listen.
--
-- KEYS: 3 the channel's topic
-- ARGV: 6 publisher and message id, 7 the publication, 8 the length of its payload, 9 what its envelope begins with
local place = redis.call('HGET', hash, ARGV[6])
if place then
  touch()
  return {0, epoch, place}
end
top = top + 1
redis.call('HSET', hash, 'top', number(top), ARGV[6], number(top), '#' .. number(top), number(now) .. ' ' .. ARGV[6])
if count == 0 then
  first = top + 1
  redis.call('HSET', hash, 'first', number(first))
else
  redis.call('XADD', stream, number(top) .. '-0', 'l', ARGV[8], 'b', ARGV[7])
end
trim()
touch()
redis.call('SPUBLISH', KEYS[3], ARGV[9] .. epoch .. ' ' .. number(top) .. '\n' .. ARGV[7])
return {1, epoch, number(top)}
