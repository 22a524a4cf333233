-- Prolongs a lease that has not run out, and tells which have.
--
-- KEYS: 1 sorted set: lease -> when it runs out, by Redis's clock
-- ARGV: 1 lease, 2 how long it lives from now on, in milliseconds, 3 'begin' if it may be new, 4 how many that ran out
--       are told
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
local lives = ARGV[3] == 'begin' or (ends and tonumber(ends) > now)
if lives then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
return {lives and 1 or 0, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])}
