"""Bounds on bytes."""

from __future__ import annotations

from zoo.bounded import ByteCache, LivingBytes


def test_the_least_recently_used_values_make_room():
    cache: ByteCache[bytes] = ByteCache(lambda: 10, len)
    cache.put("a", bytes(4))
    cache.put("b", bytes(4))
    assert cache.get("a") == bytes(4)
    cache.put("c", bytes(4))
    assert ["a" in cache, "b" in cache, "c" in cache] == [True, False, True]
    assert (len(cache), cache.bytes) == (2, 8)


def test_the_newest_value_stays_however_large():
    cache: ByteCache[bytes] = ByteCache(lambda: 10, len)
    cache.put("a", bytes(4))
    cache.put("large", bytes(99))
    assert ("a" in cache, cache.get("large")) == (False, bytes(99))
    cache.put("a", bytes(4))
    assert (len(cache), cache.bytes) == (1, 4)
    cache.clear()
    assert (len(cache), cache.bytes, cache.get("a")) == (0, 0, None)


class Value:
    """An object that can be counted."""


def test_bytes_are_counted_for_as_long_as_their_object_lives():
    living = LivingBytes()
    first, second = Value(), Value()
    assert living.keep(first, 6, 10) and not living.keep(second, 5, 10)
    assert living.bytes == 6
    del first
    assert living.bytes == 0 and living.keep(second, 5, 10)
