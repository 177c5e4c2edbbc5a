"""What the server does for a `RedisStore`: one script for each thing that is asked of it.

A script is one step for the server, so what it checks and what it writes belong together. All times are the server's,
in microseconds (TIME), and the numbers are below 2**53, which Lua's have exactly.

    KEYS[1]   a hash: the run of the server that the leases belong to, when it was first seen, the longest TTL in use
    a lease   a member of the sorted set of its limit, its score the time when it runs out
    wanted    a string for each limit: the process that was last refused a place; it lives a little longer than a poll
    a rate    a string: when the next start would be due if all came evenly (TAT in ITU-T I.371)

**The pause.** A server that was started again may have lost leases, or have been given old ones by a snapshot. So it
grants nothing for one TTL, in which holders register again. It is known by its run id, which the scripts read
themselves: a client that remembered it would go on with an old one after its pool has connected again in silence, and
two clients with different ones would pause each other for ever. A replica that takes over has a run id of its own.

Every key expires. The first one stays for a week after its last use: when it is gone, the next call pauses once more.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ACQUIRE", "ALLOWED", "RELEASE", "RENEW"]

ALLOWED: Final = (
    "~{trio-connect}:* +eval +evalsha +get +hmget +hset +info +pexpire +pttl +set +time +zadd +zcard +zrange +zrem "
    "+zremrangebyscore +zscore"
)
"""What an ACL has to allow, as ACL SETUSER takes it."""

_BEGIN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ttl = tonumber(ARGV[1])
local function number(n) return string.format('%.0f', n) end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run then return redis.error_reply('ERR the answer to INFO has no run_id, by which a restart is known') end
local seen = redis.call('HMGET', KEYS[1], 'run', 'began', 'ttl')
local began, longest = tonumber(seen[2]), tonumber(seen[3])
if seen[1] ~= run then
  began, longest = now, 0
end
if ttl > longest then
  longest = ttl
  redis.call('HSET', KEYS[1], 'run', run, 'began', number(began), 'ttl', number(longest))
end
redis.call('PEXPIRE', KEYS[1], 604800000)
local open = began + longest
local function hold(key, id)
  redis.call('ZADD', key, number(now + ttl), id)
  local left = redis.call('PTTL', key)
  if left < ttl / 1000 + 1000 then
    redis.call('PEXPIRE', key, number(math.ceil(ttl / 1000) + 1000))
  end
end
"""

ACQUIRE: Final = (
    _BEGIN
    + """
-- KEYS: the first one, n limits, what is wanted of each, m rates, then a key for each lease that is given back.
-- ARGV: ttl, id, n, m, n numbers, m times interval and burst, then the id of each lease that is given back.
local id, n, m = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 2 + 2 * n + m, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i + 3 - n + m]) end
if now < open then return {'pause', number(open - now), 0} end
local there, wanted, process = 0, '', string.match(id, '^(.*):')
for i = 1, n do
  local key = KEYS[1 + i]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZSCORE', key, id) then
    there = there + 1
  elseif redis.call('ZCARD', key) >= tonumber(ARGV[4 + i]) then
    redis.call('SET', KEYS[1 + n + i], process, 'PX', 1500)
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    return {'cap', number(tonumber(first[2]) - now), i}
  end
end
-- An answer was lost, and the question came once more: the rates have counted it.
if n == 0 or there < n then
  local wait, slowest, due = 0, 0, {}
  for j = 1, m do
    local interval, burst = tonumber(ARGV[3 + n + 2 * j]), tonumber(ARGV[4 + n + 2 * j])
    due[j] = math.max(tonumber(redis.call('GET', KEYS[1 + 2 * n + j]) or 0), now)
    local left = due[j] - (burst - 1) * interval - now
    if left > wait then wait, slowest = left, j end
  end
  if wait > 0 then return {'rate', number(wait), slowest} end
  for j = 1, m do
    local at = due[j] + tonumber(ARGV[3 + n + 2 * j])
    redis.call('SET', KEYS[1 + 2 * n + j], number(at), 'PX', number(math.ceil((at - now) / 1000) + 1))
  end
end
for i = 1, n do
  hold(KEYS[1 + i], id)
  local who = redis.call('GET', KEYS[1 + n + i])
  if who == process then
    redis.call('PEXPIRE', KEYS[1 + n + i], 0)
    who = false
  end
  wanted = wanted .. (who and '1' or '0')
end
return {'granted', wanted, 0}
"""
)
"""Take a lease under each limit and count a start of each rate, or do nothing; leases that were given back go first.

Returns the outcome ("granted", "pause", "cap" or "rate"), the microseconds until it is worth asking again, and which
limit or rate refuses, counted from 1. For "granted" the second has a digit for each limit: 1 when another process was
lately refused a place under it.
"""

RENEW: Final = (
    _BEGIN
    + """
-- KEYS: the first one, the processes, then the limit of each lease. ARGV: ttl, id of the process, 0 or 1, then ids.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
hold(KEYS[2], ARGV[2])
local processes = redis.call('ZCARD', KEYS[2])
local answer = {now < open and -processes or processes}
for i = 3, #KEYS do
  local id = ARGV[i + 1]
  local at = redis.call('ZSCORE', KEYS[i], id)
  if ARGV[3] == '1' or now < open or (at and tonumber(at) > now) then
    hold(KEYS[i], id)
    answer[i - 1] = 1
  else
    answer[i - 1] = 0
  end
end
return answer
"""
)
"""Prolong leases that have not run out, and say that this process is there.

In the pause a lease is written that is not there. With 1 as the third argument it always is: for connections that live
on without a lease, which are counted again.

Returns how many processes there are, below 0 in the pause, when not all have said so yet; then 1 for each lease that is
held, and 0 for each that is gone.
"""

RELEASE: Final = "for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end return {1}"
"""Give leases back. KEYS: the limit of each. ARGV: the id of each."""
