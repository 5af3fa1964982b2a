"""Text kept as blocks, cheap to add to at the end and to take away from at the beginning."""

from __future__ import annotations

from collections import deque

from .typed import byte_length

_MAX_SMALL_PIECES = 512


class TextBlocks:
    """A text that grows by pieces and may be shortened from its beginning, a block at a time.

    Small pieces are joined into blocks, so that a stream written a character at a time costs no more memory
    than its text. ``size`` is in bytes of UTF-8.
    """

    def __init__(self, block_chars: int) -> None:
        self._block_chars = block_chars
        self._blocks: deque[str] = deque()
        self._small: list[str] = []
        self._small_chars = 0
        self.size = 0

    def append(self, text: str) -> None:
        """Adds text at the end."""
        self.size += byte_length(text)
        if len(text) < self._block_chars:
            self._small.append(text)
            self._small_chars += len(text)
            if self._small_chars >= self._block_chars or len(self._small) >= _MAX_SMALL_PIECES:
                self._join_small()
            return
        self._join_small()
        step = self._block_chars
        self._blocks.extend(text[start : start + step] for start in range(0, len(text), step))

    def drop_first(self) -> int:
        """Takes the first block away and returns its size in bytes; 0 if there is none."""
        if not self._blocks:
            self._join_small()
        if not self._blocks:
            return 0
        size = byte_length(self._blocks.popleft())
        self.size -= size
        return size

    def text(self) -> str:
        """All of it."""
        return "".join((*self._blocks, *self._small))

    def _join_small(self) -> None:
        if self._small:
            self._blocks.append("".join(self._small))
            self._small.clear()
            self._small_chars = 0
