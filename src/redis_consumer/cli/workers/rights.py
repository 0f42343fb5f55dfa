"""Lists the commands and keys that a worker's ACL user needs in Redis, and finds missing rights."""

from __future__ import annotations

from collections.abc import Sequence

from redis_consumer.redis import RedisClient
from redis_consumer.redis_servers import refused_commands

#: Key that never exists.
_PROBE = "redis-consumer:probe"
#: Commands of the client and the scripts; each with arguments that would do nothing.
_ON_A_KEY = """
BLMOVE _ RIGHT LEFT 1|DEL|EXISTS|EXPIRE 1|GET|HDEL f|HEXISTS f|HGET f|HGETALL|HKEYS|HLEN|HMGET f|HRANDFIELD
|HSET f v|HSETNX f v|HSTRLEN f|INCR|LINDEX 0|LLEN|LMOVE _ RIGHT LEFT|LPOS e|LPUSH e|LRANGE 0 0|LREM 1 e
|PERSIST|PTTL|RENAME _|RPUSH e|SADD e|SET v|SISMEMBER e|SMEMBERS|SRANDMEMBER|SREM e|SSCAN 0|TYPE|UNLINK
|ZADD 0 e|ZCARD|ZCOUNT 0 0|ZRANGE 0 0|ZRANGEBYSCORE 0 0|ZREM e|ZSCORE e
"""
_OTHERS = (
    ("PING",),
    ("TIME",),
    ("WAIT", "0", "1"),
    ("INFO", "server"),
    ("EVAL", "return 1", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("CLIENT", "SETNAME", "x"),
    ("CLIENT", "LIST"),
    ("CLIENT", "UNBLOCK", "0"),
)
_TRANSACTION = ("MULTI", "DISCARD")


def keys_of(queue: str) -> list[str]:
    """List the patterns of a queue's keys: its list and jobs, the lists of running jobs, and our own keys."""
    return [queue, f"{queue}:*", f"processing-{queue}:*", "redis-consumer:*"]


def commands() -> list[list[str]]:
    """List the commands, with arguments that would do nothing."""
    on_a_key = []
    for text in _ON_A_KEY.replace("\n", "").split("|"):
        name, *others = text.split()
        on_a_key.append([name, _PROBE, *(_PROBE if each == "_" else each for each in others)])
    return [*on_a_key, *map(list, _OTHERS)]


def rule(queues: Sequence[str]) -> str:
    """Return the rules for ``ACL SETUSER`` that a worker of these queues needs."""
    names = ["|".join(each[:2]) if each[0] == "CLIENT" else each[0] for each in commands()]
    keys = dict.fromkeys(key for queue in queues for key in keys_of(queue))
    return " ".join([*(f"~{key}" for key in keys), *(f"+{name.lower()}" for name in (*names, *_TRANSACTION))])


def missing(client: RedisClient, queues: Sequence[str]) -> list[str]:
    """List the commands and keys that the user has no right to use. No command is run."""
    keys = [key.replace("*", "probe") for queue in queues for key in keys_of(queue)]
    refused = refused_commands(client._redis_master, [*commands(), *(["EXISTS", key] for key in keys)])
    found = []
    for command in refused:
        is_key = command[0] == "EXISTS" and command[1] != _PROBE
        found.append(f"key {command[1]}" if is_key else " ".join(command[: 2 if command[0] == "CLIENT" else 1]).lower())
    return list(dict.fromkeys(found))
