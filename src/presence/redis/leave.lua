-- Takes a session out of a channel, unless it is there by another node or another connection.
--
-- KEYS: as in join.lua
-- ARGV: 1 session, 2 instance, 3 connection
redis.call('SREM', KEYS[3], ARGV[1])
local left = 0
local there = redis.call('HGET', KEYS[1], ARGV[1])
if there then
  local instance, connection, user = string.match(there, '^(%x+)%.%d+ (%d+) (.*)$')
  if instance == ARGV[2] and connection == ARGV[3] then
    redis.call('HDEL', KEYS[1], ARGV[1])
    if user ~= '' and redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
      redis.call('HDEL', KEYS[2], user)
    end
    left = 1
  end
end
return {redis.call('HLEN', KEYS[1]), left}
