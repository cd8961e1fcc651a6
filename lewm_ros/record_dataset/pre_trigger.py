"""What came in the last seconds before an episode was asked for. Knows no ROS."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_NS_PER_S = 1_000_000_000
#: Bytes that a message costs besides its own.
_OVERHEAD = 256


class PreTriggerBuffer(Generic[T]):
    """Messages of the last seconds by their time of receipt, bounded in memory.

    Attributes:
        short: Whether messages that are young enough had to go because memory is bounded.
    """

    def __init__(self, seconds: float, limit_bytes: int) -> None:
        """Begin empty.

        Args:
            seconds: s; older messages go.
            limit_bytes: Of all messages together; beyond it the oldest go.
        """
        self.short = False
        self._window_ns = round(seconds * _NS_PER_S)
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._entries: deque[tuple[int, int, T]] = deque()

    def add(self, receive_ns: int, size: int, entry: T) -> None:
        """Keep a message.

        Args:
            receive_ns: ns; when it was received.
            size: Of it, in bytes.
            entry: The message.
        """
        if self._entries and receive_ns < self._entries[-1][0] - self._window_ns:
            # The clock was set back (a simulation began anew): what was before is of another time.
            self.clear()
        self._entries.append((receive_ns, size + _OVERHEAD, entry))
        self._bytes += size + _OVERHEAD
        self._forget(receive_ns)
        while self._bytes > self._limit_bytes:
            self.short = True
            self._pop()

    def take(self, now_ns: int) -> list[T]:
        """Return the messages that are young enough now, oldest first, and keep none."""
        self._forget(now_ns)
        taken = [entry for _, _, entry in self._entries]
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget all messages."""
        self._entries.clear()
        self._bytes = 0

    def _forget(self, now_ns: int) -> None:
        while self._entries and self._entries[0][0] < now_ns - self._window_ns:
            self._pop()

    def _pop(self) -> None:
        self._bytes -= self._entries.popleft()[1]
