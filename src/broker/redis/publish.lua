-- Announces how far the log has a durable channel, and sends what says so to the nodes that listen.
--
-- KEYS: 1 the channel's top, '<epoch> <offset>'; 2 its topic
-- ARGV: 1 epoch, 2 offset, 3 milliseconds after which a top that nobody announced again is forgotten, 4 what is sent
local function higher(a, b)
  -- As text: a number of Lua's does not hold every offset.
  return #a > #b or (#a == #b and a > b)
end

local epoch, offset = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if epoch == ARGV[1] and not higher(ARGV[2], offset) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
return redis.call('SPUBLISH', KEYS[2], ARGV[4])
