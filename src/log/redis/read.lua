-- A page of what there is, and what that is part of.
--
-- ARGV: 6 XRANGE or XREVRANGE, 7 where it begins, 8 publications and 9 bytes of payload at most; the first is given
--       however large it is
local CHUNK = 32

trim()
local page = {epoch, number(first), number(top)}
local limit, room = tonumber(ARGV[8]), tonumber(ARGV[9])
local forward = ARGV[6] == 'XRANGE'
local from, last, step = ARGV[7], forward and '+' or '-', forward and 1 or -1
local given = 0

-- Whether there was room for it.
local function give(offset, length, body)
  if given == limit or length > room and given > 0 then
    return false
  end
  room = math.max(room - length, 0)
  given = given + 1
  page[#page + 1] = number(offset)
  page[#page + 1] = body
  return true
end

-- The place that comes next: the stream lacks those whose messages are deleted.
local place = tonumber(string.match(from, '%d+'))
if not place then
  place = top
elseif forward then
  place = math.max(place + 1, first)
else
  place = math.min(place - 1, top)
end

-- Gives what is left of the deleted ones before `stop`.
local function give_deleted(stop)
  while (stop - place) * step > 0 do
    local left = redis.call('HGET', hash, '~' .. number(place))
    if left and not give(place, #left, left) then
      return false
    end
    place = place + step
  end
  return true
end

while given < limit do
  local chunk = redis.call(ARGV[6], stream, from, last, 'COUNT', math.min(CHUNK, limit - given))
  for _, entry in ipairs(chunk) do
    local offset = tonumber(string.match(entry[1], '^%d+'))
    if not give_deleted(offset) or not give(offset, tonumber(entry[2][2]), entry[2][4]) then
      return page
    end
    place = offset + step
  end
  if #chunk < CHUNK then
    break
  end
  from = '(' .. chunk[#chunk][1]
end
if gone > 0 and given < limit then
  give_deleted(forward and top + 1 or first - 1)
end
return page
