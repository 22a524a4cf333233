-- A page of what there is, and what that is part of.
--
-- ARGV: 6 XRANGE or XREVRANGE, 7 where it begins, 8 publications and 9 bytes of payload at most; the first is given
--       however large it is
local CHUNK = 32

trim()
local page = {epoch, number(first), number(top)}
local limit, room = tonumber(ARGV[8]), tonumber(ARGV[9])
local from, last = ARGV[7], ARGV[6] == 'XRANGE' and '+' or '-'
local given = 0
while given < limit do
  local chunk = redis.call(ARGV[6], stream, from, last, 'COUNT', math.min(CHUNK, limit - given))
  for _, entry in ipairs(chunk) do
    local length = tonumber(entry[2][2])
    if length > room and given > 0 then
      return page
    end
    room = math.max(room - length, 0)
    given = given + 1
    page[#page + 1] = string.match(entry[1], '^%d+')
    page[#page + 1] = entry[2][4]
  end
  if #chunk < CHUNK then
    break
  end
  from = '(' .. chunk[#chunk][1]
end
return page
