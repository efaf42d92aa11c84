"""Bounds on bytes: a cache bounded by what it keeps, and a sum over objects that others keep."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Values by key; the ones that were not used for longest make room. Safe to share between threads.

    The newest value is always kept, however large it is.

    Args:
        max_bytes: Function that returns the limit, which may change while the program runs.
        size: Function from a value to its bytes.

    Example:
        >>> cache = ByteCache(lambda: 10, len)
        >>> cache.put("a", b"12345678"), cache.put("b", b"123"), "a" in cache
        (None, None, False)
    """

    def __init__(self, max_bytes: Callable[[], int], size: Callable[[Value], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, which counts as a use; None if it is not kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: Value) -> None:
        """Keep a value, and drop others until all fit."""
        with self._lock:
            if key in self._values:
                self.bytes -= self._size(self._values.pop(key))
            self._values[key] = value
            self.bytes += self._size(value)
            while self.bytes > self._max_bytes() and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self.bytes -= self._size(dropped)

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values.clear()
            self.bytes = 0


class LivingBytes:
    """Sum of the bytes of objects, each counted for as long as it lives. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = 0
        self._freed: deque[int] = deque()  # filled by the garbage collector, which must not wait for the lock

    @property
    def bytes(self) -> int:
        """Bytes of all objects that live."""
        with self._lock:
            return self._sum()

    def keep(self, value: object, size: int, most: int) -> bool:
        """Count an object of `size` bytes for as long as it lives, unless the sum would exceed `most` bytes.

        Returns:
            Whether it was counted.
        """
        with self._lock:
            if self._sum() + size > most:
                return False
            self._kept += size
        weakref.finalize(value, self._freed.append, size).atexit = False
        return True

    def _sum(self) -> int:
        while self._freed:
            self._kept -= self._freed.popleft()
        return self._kept
