-- What there is of the channel.
--
-- ARGV: 6 whether somebody listens to it
trim()
if ARGV[6] == '1' then
  touch()
end
return {epoch, number(first), number(top)}
