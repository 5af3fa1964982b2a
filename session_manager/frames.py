"""The format of the exec stream, on this side; ``kernel_image/FRAMES.md`` has it in words. What is read is hostile."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .errors import FrameError

PROTOCOL = 2
HEADER = struct.Struct("!BII")
CREDIT_PAYLOAD = struct.Struct("!I")
HELLO, OPEN, DATA, CLOSE, CREDIT, REQUEST, REPLY, EVENT = range(1, 9)
MAX_PAYLOAD = 262144
WINDOW = 1048576
LATEST: Final = 1 << 40
"""Seconds after 1970 that no clock has reached."""
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class FrameReader:
    """Cuts what arrives into frames. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._incoming = bytearray()

    @property
    def has_begun(self) -> bool:
        """Whether a frame is under way."""
        return bool(self._incoming)

    def feed(self, received: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The frames that are complete now: kind, stream, payload.

        :raises FrameError: a header announces more than the bound.
        """
        self._incoming += received
        position = 0
        try:
            while len(self._incoming) - position >= HEADER.size:
                kind, number, length = HEADER.unpack_from(self._incoming, position)
                if length > MAX_PAYLOAD:
                    raise FrameError(f"The container sent a frame of {length} bytes; the limit is {MAX_PAYLOAD}.")
                start = position + HEADER.size
                if len(self._incoming) < start + length:
                    break
                position = start + length
                yield kind, number, bytes(memoryview(self._incoming)[start:position])
        finally:
            del self._incoming[:position]


def parse_object(payload: bytes) -> dict[str, object]:
    """The JSON object of a HELLO, REPLY or EVENT.

    :raises FrameError: it is none.
    """
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameError("The container sent a frame that is not JSON.") from error
    if not isinstance(message, dict):
        raise FrameError("The container sent a frame that is no JSON object.")
    return message


def words_of(value: object, most: int) -> str:
    """So many characters at most of what a container says, to be quoted. Lists in lists may be too deep for Python to
    show."""
    return str(value)[:most] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class KernelState:
    """What the supervisor says of its kernel. It comes out of a container: believed, never trusted."""

    state: str
    """``starting``, ``ready`` or ``dead``."""
    generation: int
    """Counts the kernels of one container, from 1."""
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    last_words: str = ""
    cell_began: float | None = None
    """When the cell began that ran as it ended, by the container's clock: Unix time, seconds. None where none ran."""

    @classmethod
    def parse(cls, fields: object) -> KernelState:
        """Check what arrived.

        :raises FrameError: it is not a kernel's state.
        """
        if not isinstance(fields, dict):
            raise FrameError("The container sent a kernel state that is no object.")
        state, generation = fields.get("state"), fields.get("generation")
        began = fields.get("cell_began")
        exit_code, signal, words = fields.get("exit_code"), fields.get("signal"), fields.get("last_words", "")
        if (
            state not in ("starting", "ready", "dead")
            or not isinstance(generation, int)
            or not isinstance(exit_code, int | None)
            or not isinstance(signal, int | None)
            or not isinstance(words, str)
            or not isinstance(began, int | float | None)
            or isinstance(began, bool)
        ):
            raise FrameError("The container sent a malformed kernel state.")
        # code inside can give the record of its cell any time: what no clock says costs that cell's files, not the link
        known = began if began is not None and 0 <= began < LATEST else None
        return cls(state, generation, exit_code, signal, fields.get("out_of_memory") is True, words, known)
