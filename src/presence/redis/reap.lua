-- Takes out of a channel some of the sessions that a lease had there which ran out. Nobody left: none is returned.
--
-- KEYS: as in join.lua
-- ARGV: 1 lease, 2 how many are looked at
local sessions = redis.call('SPOP', KEYS[3], ARGV[2])
local reaped = {#sessions}
for _, session in ipairs(sessions) do
  local there = redis.call('HGET', KEYS[1], session)
  if there then
    local lease, _, user = string.match(there, '^(%S+) (%d+) (.*)$')
    -- It may be elsewhere by now, or its node has come back with another lease.
    if lease == ARGV[1] then
      redis.call('HDEL', KEYS[1], session)
      if user ~= '' and redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
        redis.call('HDEL', KEYS[2], user)
      end
      reaped[#reaped + 1] = {session, user, redis.call('HLEN', KEYS[1])}
    end
  end
end
return reaped
