-- Puts a session into a channel.
--
-- KEYS: 1 hash: session -> '<lease> <connection> <user>', the lease being '<instance>.<number>'; 2 hash: user ->
--       sessions; 3 set of the sessions that this lease has in the channel
-- ARGV: 1 session, 2 instance, 3 lease, 4 connection, 5 user or nothing, 6 'join', or 'put' for what a node had put
--       there before: then it yields to another node, where the session may have gone since
local there = redis.call('HGET', KEYS[1], ARGV[1])
local user = nil
if there then
  local lease, connection, of = string.match(there, '^(%S+) (%d+) (.*)$')
  local is_ours = string.match(lease, '^%x+') == ARGV[2]
  -- Of one node, the newer connection has the higher number; what is put back may be older than what came since.
  local is_newer = is_ours and tonumber(connection) > tonumber(ARGV[4])
  if is_newer or (ARGV[6] == 'put' and not is_ours) then
    return {redis.call('HLEN', KEYS[1]), 0}
  end
  user = of
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
redis.call('SADD', KEYS[3], ARGV[1])
if user ~= ARGV[5] then
  if user and user ~= '' and redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
    redis.call('HDEL', KEYS[2], user)
  end
  if ARGV[5] ~= '' then
    redis.call('HINCRBY', KEYS[2], ARGV[5], 1)
  end
end
return {redis.call('HLEN', KEYS[1]), there and 0 or 1}
