"""A bound on messages of several parts, which libzmq has none for: it keeps parts until the last one has come.

What is followed is ZMTP 3.x (https://rfc.zeromq.org/spec/37/), as a kernel's sockets speak it: a greeting of 64 bytes,
then frames, each of which says how long it is and whether its message goes on.
"""

from __future__ import annotations

from .errors import FrameError

GREETING = 64
MOST_PARTS = 10_000
"""Of one message. A Jupyter message has six, and one for each buffer."""
MOST_COMMAND = 1 << 16
_MORE, _LONG, _COMMAND = 1, 2, 4


class MessageBound:
    """Follows what one peer sends, and stops a message that is more than it may be before it has come.

    ``most_bytes``: of all parts of one message together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._greeting = GREETING
        """Bytes of the greeting that are still to come."""
        self._header = bytearray()
        """Of a frame that has begun, where it was cut."""
        self._skip = 0
        """Bytes of a frame's body that are still to come."""
        self._parts = self._bytes = 0

    def feed(self, received: bytes) -> None:
        """Look at what came.

        :raises FrameError: it is no ZMTP 3, or a message of it is too large.
        """
        at, end = 0, len(received)
        while self._greeting and at < end:
            self._greet(received[at])
            at += 1
        while at < end:
            if self._skip:
                taken = min(self._skip, end - at)
                self._skip -= taken
                at += taken
                continue
            header = self._header
            if not header and at + 9 <= end:  # in one piece, as nearly all are
                flags = received[at]
                size = 9 if flags & _LONG else 2
                self._begin(flags, int.from_bytes(received[at + 1 : at + size], "big"))
                at += size
                continue
            header.append(received[at])
            at += 1
            if len(header) == (9 if header[0] & _LONG else 2):
                self._begin(header[0], int.from_bytes(header[1:], "big"))
                header.clear()

    def _greet(self, byte: int) -> None:
        place = GREETING - self._greeting
        if (place, byte) in ((0, 0xFF), (9, 0x7F)) or (place == 10 and byte >= 3) or place not in (0, 9, 10):
            self._greeting -= 1
            return
        raise FrameError("The container's kernel speaks another protocol than ZMTP 3.")

    def _begin(self, flags: int, length: int) -> None:
        if flags > _MORE | _LONG | _COMMAND or (flags & _COMMAND and (flags & _MORE or length > MOST_COMMAND)):
            raise FrameError("The container's kernel sent a malformed frame.")
        self._skip = length
        if flags & _COMMAND:
            return
        self._parts += 1
        self._bytes += length
        if self._parts > MOST_PARTS or self._bytes > self._most_bytes:
            raise FrameError(
                f"The container's kernel sent a message of more than {self._most_bytes} bytes, or {MOST_PARTS} parts."
            )
        if not flags & _MORE:
            self._parts = self._bytes = 0
