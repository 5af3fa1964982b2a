"""Outputs kept within a budget of bytes and a number: the first ones, and a ring of the last ones."""

from __future__ import annotations

from collections import deque
from typing import Literal

from .ring import TextBlocks
from .typed import Display, Error, Output, Result, Stream, byte_length, split_bytes

# What an output costs besides its content: so that millions of empty ones are not free.
OVERHEAD = 200
_MAX_BLOCK_CHARS = 65_536


class KeptStream:
    """A run of chunks of one stream."""

    __slots__ = ("blocks", "name")

    def __init__(self, name: Literal["stdout", "stderr"], block_chars: int) -> None:
        self.name = name
        self.blocks = TextBlocks(block_chars)

    @property
    def size(self) -> int:
        return self.blocks.size + OVERHEAD


class KeptBundle:
    """A display, result or error in its place. ``size`` is what it costs, in bytes."""

    __slots__ = ("__weakref__", "in_tail", "output", "size")

    def __init__(self, output: Display | Result | Error, content_size: int) -> None:
        self.output = output
        self.size = content_size + OVERHEAD
        self.in_tail = False


class KeptOutputs:
    """The outputs of a cell in their order: a head that fills up first, then a tail that is a ring.

    What the ring drops is counted, and shown as a marker between the two. All sizes are in bytes.
    """

    def __init__(self, max_bytes: int, max_outputs: int, head_bytes: int, tail_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.tail_bytes = tail_bytes
        self._head_bytes = head_bytes
        # One output is the marker.
        self._tail_count = max_outputs // 4
        self._head_count = max_outputs - self._tail_count - 1
        self._block_chars = min(_MAX_BLOCK_CHARS, max_bytes // 64)
        self.clear()

    def clear(self) -> None:
        """Forgets all outputs, and what was left out of them."""
        self._head: list[KeptStream | KeptBundle] = []
        self._tail: deque[KeptStream | KeptBundle] = deque()
        self._head_size = 0
        self._tail_size = 0
        self._spilled = False
        self._dropped_bytes = 0
        self._dropped_outputs = 0
        self.stream: KeptStream | None = None
        self.left_out_bytes = 0

    @property
    def head_room(self) -> int:
        """What still fits into the head."""
        return 0 if self._spilled else max(0, self._head_bytes - self._head_size)

    def room_for_bundle(self) -> int:
        """The largest content that a bundle may have now."""
        self._spill_if_full(OVERHEAD)
        # Of the ring one half, so that one image does not push all else out.
        return (self.tail_bytes // 2 if self._spilled else self.head_room) - OVERHEAD

    def start_stream(self, name: Literal["stdout", "stderr"]) -> None:
        """Begins an output that :meth:`add_text` adds to."""
        self._spill_if_full(OVERHEAD)
        self.stream = KeptStream(name, self._block_chars)
        self._add(self.stream)

    def add_text(self, text: str) -> None:
        """Adds to the stream that was started last, over from the head into the tail if need be."""
        if self.stream is None or not text:
            return
        if not self._spilled:
            first, text = split_bytes(text, self.head_room)
            self.stream.blocks.append(first)
            self._head_size += byte_length(first)
            if not text:
                return
            self._spilled = True
            self.start_stream(self.stream.name)
        self.stream.blocks.append(text)
        self._tail_size += byte_length(text)
        self._trim_tail()

    def skip_text(self, text: str) -> None:
        """Leaves text out, and with it all that the ring holds: more will follow than fits into the ring."""
        if self.stream is None:
            return
        if not self._spilled:
            self._spilled = True
            self.start_stream(self.stream.name)
        while self._tail_size > OVERHEAD:
            self._drop_oldest()
        self._count_dropped(byte_length(text))

    def add_bundle(self, kept: KeptBundle) -> None:
        """Adds a display, result or error, and ends the stream."""
        self.stream = None
        self._spill_if_full(kept.size)
        kept.in_tail = self._spilled
        self._add(kept)

    def replace(self, kept: KeptBundle, output: Display | Result, content_size: int) -> bool:
        """Puts another output in the place of one; returns False, changing nothing, where it does not fit."""
        growth = content_size + OVERHEAD - kept.size
        if kept.in_tail:
            if self._tail_size + growth > self.tail_bytes:
                return False
            self._tail_size += growth
        else:
            if self._head_size + growth > self._head_bytes:
                return False
            self._head_size += growth
        kept.output = output
        kept.size += growth
        return True

    def outputs(self, line: str) -> tuple[Output, ...]:
        """All outputs; ``line`` is what is on the line that the current stream has not finished."""
        shown: list[Output] = []
        for kept in self._head:
            self._show(kept, line, shown)
        if self._dropped_bytes or self._dropped_outputs:
            self._show_marker(shown)
        for kept in self._tail:
            self._show(kept, line, shown)
        return tuple(shown)

    def _show(self, kept: KeptStream | KeptBundle, line: str, shown: list[Output]) -> None:
        if isinstance(kept, KeptBundle):
            shown.append(kept.output)
            return
        text = kept.blocks.text() + (line if kept is self.stream else "")
        if shown and isinstance(last := shown[-1], Stream) and last.name == kept.name:
            shown[-1] = Stream(kept.name, last.text + text)
        elif text:
            shown.append(Stream(kept.name, text))

    def _show_marker(self, shown: list[Output]) -> None:
        whole = f"{self._dropped_outputs} outputs, " if self._dropped_outputs else ""
        amount = f"{whole}{self._dropped_bytes} bytes"
        marker = f"… {amount} left out (limit {self.max_bytes} bytes for a cell) …\n"
        if shown and isinstance(last := shown[-1], Stream):
            separator = "" if last.text.endswith("\n") else "\n"
            shown[-1] = Stream(last.name, last.text + separator + marker)
        else:
            shown.append(Stream("stderr", marker))

    def _add(self, kept: KeptStream | KeptBundle) -> None:
        if self._spilled:
            self._tail.append(kept)
            self._tail_size += kept.size
            self._trim_tail()
        else:
            self._head.append(kept)
            self._head_size += kept.size

    def _spill_if_full(self, size: int) -> None:
        if len(self._head) >= self._head_count or self._head_size + size > self._head_bytes:
            self._spilled = True

    def _trim_tail(self) -> None:
        while self._tail_size > self.tail_bytes or len(self._tail) > self._tail_count:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._tail[0]
        # A stream goes by blocks while the number of outputs allows, so that the end of a long text stays.
        if isinstance(oldest, KeptStream) and len(self._tail) <= self._tail_count:
            dropped = oldest.blocks.drop_first()
            if dropped:
                self._tail_size -= dropped
                self._count_dropped(dropped)
                return
        self._tail.popleft()
        self._tail_size -= oldest.size
        self._dropped_outputs += 1
        self._count_dropped(oldest.size - OVERHEAD)

    def _count_dropped(self, size: int) -> None:
        self._dropped_bytes += size
        self.left_out_bytes += size
