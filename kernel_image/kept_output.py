"""The last output of a kernel, kept for a program that was away while it was published."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

DELIMITER = b"<IDS|MSG>"
PAGE = 1 << 20  # bytes of messages in one answer, or one message


class KeptOutput:
    """A ring of published messages, the newest ``max_bytes`` of them. Safe from any thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        self.messages: deque[tuple[int, list[bytes]]] = deque()
        self.size = 0
        self.next = 0

    def add(self, frames: list[Any]) -> None:
        """Keep a message as it goes out. One that is larger than the ring empties it: what is kept has no holes."""
        kept = [frame if isinstance(frame, bytes) else bytes(frame) for frame in frames]
        size = sum(map(len, kept))
        with self.lock:
            self.messages.append((size, kept))
            self.next += 1
            self.size += size
            while self.size > self.max_bytes:
                self.size -= self.messages.popleft()[0]

    def after(self, msg_id: str) -> int | None:
        """The number of the message that follows the one of this id; None where that is not kept any more."""
        needle = json.dumps(msg_id).encode()
        with self.lock:
            for back, (_, frames) in enumerate(reversed(self.messages)):
                if needle in header_of(frames):
                    return self.next - back
        return None

    def page(self, start: int, cell: str | None) -> tuple[list[dict[str, Any]], int, bool]:
        """Messages from number ``start`` on, of one cell if it is named: a page of them, the number that the next page
        begins with, and whether that is all for now."""
        with self.lock:
            first = self.next - len(self.messages)
            frames = [kept for number, (_, kept) in enumerate(self.messages, first) if number >= start]
        number, size = max(start, first), 0
        found: list[dict[str, Any]] = []
        for kept in frames:
            number += 1
            for message in parsed(kept, cell):
                found.append(message)
                size += sum(map(len, kept))
            if size >= PAGE:
                return found, number, False
        return found, number, True

    def first(self) -> int:
        """The number of the oldest message that is kept."""
        with self.lock:
            return self.next - len(self.messages)


def header_of(frames: list[bytes]) -> bytes:
    """The header of a message on the wire (Jupyter messaging, "The wire protocol")."""
    try:
        return frames[frames.index(DELIMITER) + 2]
    except (ValueError, IndexError):
        return b""


def parsed(frames: list[bytes], cell: str | None) -> Iterator[dict[str, Any]]:
    """The message, if it is one, and of this cell. Binary buffers stay behind: no output that is text needs them."""
    try:
        position = frames.index(DELIMITER) + 2
        header, parent, metadata, content = frames[position : position + 4]
        if cell is not None and json.dumps(cell).encode() not in parent:
            return
        yield {
            "header": json.loads(header),
            "parent_header": json.loads(parent),
            "metadata": json.loads(metadata),
            "content": json.loads(content),
        }
    except (ValueError, RecursionError):  # the code that runs can publish anything
        return
