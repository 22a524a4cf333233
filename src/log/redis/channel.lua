-- What every script of the log begins with: the channel as it is, begun anew where it was lost.
--
-- KEYS: 1 hash: run, epoch, top, first, known; '#<offset>': '<time> <identity>'; <identity>: offset;
--          gone: how many are deleted; '~<offset>': what is left of one
--       2 stream of what is kept: <offset>-0, l: length of the payload, b: the publication
-- ARGV: 1 the run of this server, 2 an epoch for a channel that begins, 3 publications kept and 4 their age in
--       milliseconds (empty: no limit), 5 milliseconds after which a channel is forgotten (0: never)
local hash, stream = KEYS[1], KEYS[2]
local count, age, idle = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- A retry comes at most so many messages of its channel later.
local WINDOW = 128
-- What goes in one call, so that no call takes long. The next one goes on.
local AT_ONCE = 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function number(n)
  return string.format('%.0f', n)
end

-- However long nobody writes: who listens holds it.
local function touch()
  for _, key in ipairs({hash, stream}) do
    if idle > 0 then
      redis.call('PEXPIRE', key, ARGV[5])
    else
      redis.call('PERSIST', key)
    end
  end
end

local there = redis.call('HMGET', hash, 'run', 'epoch', 'top', 'first', 'known', 'gone')
local epoch = there[2]
local top, first, known = tonumber(there[3] or 0), tonumber(there[4] or 1), tonumber(there[5] or 1)
local gone = tonumber(there[6] or 0)
-- Another server, or the same started again, may lack the newest of what this channel had: it could give an offset
-- away twice. So could one that has forgotten a part.
if there[1] ~= ARGV[1] or redis.call('XLEN', stream) + gone ~= top - first + 1 then
  -- A server without room refuses a script's first write, if it is one that needs room: DEL would open the door.
  redis.call('HSET', hash, 'run', ARGV[1])
  redis.call('DEL', hash, stream)
  epoch, top, first, known, gone = ARGV[2], 0, 1, 1, 0
  redis.call('HSET', hash, 'run', ARGV[1], 'epoch', epoch, 'top', 0, 'first', 1, 'known', 1)
  touch()
end

-- Lets go of what need not be kept any more.
local function trim()
  local before = first
  if count then
    before = math.max(first, top - count + 1)
  end
  if age then
    for _ = 1, AT_ONCE do
      local since = before <= top and redis.call('HGET', hash, '#' .. number(before))
      if not since or now - tonumber(string.match(since, '^%d+')) < age then
        break
      end
      before = before + 1
    end
  end
  if before > first then
    redis.call('XTRIM', stream, 'MINID', number(before) .. '-0')
    if gone > 0 then
      local left = gone
      for offset = first, before - 1 do
        left = left - redis.call('HDEL', hash, '~' .. number(offset))
      end
      if left < gone then
        gone = left
        redis.call('HSET', hash, 'gone', number(gone))
      end
    end
    first = before
    redis.call('HSET', hash, 'first', number(first))
  end
  -- By number, not by age: what is too old to be read may still be retried.
  local window = math.max(top - first + 1, WINDOW, count or 0)
  local forgotten = math.min(top - window + 1, known + AT_ONCE)
  if forgotten > known then
    for offset = known, forgotten - 1 do
      local field = '#' .. number(offset)
      local said = redis.call('HGET', hash, field)
      if said then
        redis.call('HDEL', hash, field, string.match(said, '^%d+ (.*)$'))
      end
    end
    known = forgotten
    redis.call('HSET', hash, 'known', number(known))
  end
end
