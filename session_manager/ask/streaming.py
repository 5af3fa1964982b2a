"""A streamed chat completion, put together from its chunks. No I/O.

The form is that of OpenAI's chat completion chunks, which every endpoint reads a little differently: indexes of tool
calls that are missing or always 0, ids that are missing, new in each piece or the same for two calls, names that
are repeated, reasoning under two names, usage in each chunk or in none. Every field may be missing or a lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MOST_CHARACTERS = 4_000_000
"""Of one reply, in all; a reply that is longer is refused."""
MOST_CALLS = 64
LONGEST_NAME = 256
"""Characters that are kept of a call's id and of its name."""
REASONING = ("reasoning_content", "reasoning")
"""The names under which endpoints send what a model thinks before it speaks."""
CHARACTERS_PER_TOKEN = 4
"""About what a token stands for, where an endpoint does not say how many there were."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one chunk adds for people to read."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call, as the model made it."""

    id: str
    """Unique in its reply; made up where the endpoint sent none."""
    name: str
    arguments: str
    """What should be JSON."""
    extra: Mapping[str, object] | None = None
    """``extra_content``, which some endpoints want back as it is, since it holds a signature."""


@dataclass(slots=True)
class _Call:
    """A call whose pieces still come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra: Mapping[str, object] | None = None


class Reply:
    """One reply of a model. Give each chunk to :meth:`feed`; the rest can be read at any time."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        """Why the reply ended; None as long as it has not."""
        self.tokens: int | None = None
        """Of the request and the reply together; None where the endpoint has not said."""
        self.characters = 0
        """Of text, reasoning and calls so far."""
        self.reasoning_name = REASONING[0]
        """The field in which reasoning came."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    @property
    def text(self) -> str:
        """What the model said."""
        return sound_text(self._text)

    @property
    def reasoning(self) -> str:
        """What it thought before."""
        return sound_text(self._reasoning)

    @property
    def has_calls(self) -> bool:
        """Whether it has begun to call a tool."""
        return bool(self._calls)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, in order, with ids that are there and differ."""
        taken: set[str] = set()
        calls = []
        for number, call in enumerate(self._calls, 1):
            wanted = unique = sound_text([call.id]) or f"call_{number}"
            while unique in taken:
                unique = f"{wanted}_{number}"
                number += 1
            taken.add(unique)
            calls.append(ToolCall(unique, sound_text([call.name]), sound_text(call.arguments), call.extra))
        return tuple(calls)

    def feed(self, chunk: object) -> Delta:
        """Take one chunk, as parsed JSON; what is in it to show.

        :raises ValueError: the reply is longer than anyone would read, or has too many calls.
        """
        if not isinstance(chunk, Mapping):
            return Delta()
        self._take_usage(chunk.get("usage"))
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return Delta()
        if reason := _string(choice.get("finish_reason")):
            self.finish_reason = reason[:LONGEST_NAME]
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return Delta()
        text = _content(delta.get("content"))
        # a model that will not answer says why in a field of its own
        text += _string(delta.get("refusal"))
        reasoning = ""
        for name in REASONING:
            if reasoning := _string(delta.get(name)):
                self.reasoning_name = name
                break
        self._count(len(text) + len(reasoning))
        if text:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        pieces = delta.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, Mapping):
                self._take_piece(piece)
        return Delta(text, reasoning)

    def _take_piece(self, piece: Mapping[object, object]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else {}
        call_id, name = _string(piece.get("id"))[:LONGEST_NAME], _string(function.get("name"))[:LONGEST_NAME]
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments)
        arguments = _string(arguments)
        extra = piece.get("extra_content")
        self._count(len(call_id) + len(name) + len(arguments) + len(repr(extra) if extra else ""))
        call = self._call_of(piece.get("index"), call_id, name)
        call.id = call.id or call_id
        if name != call.name and len(call.name) + len(name) <= LONGEST_NAME:
            call.name += name
        if arguments:
            call.arguments.append(arguments)
        if isinstance(extra, Mapping):
            call.extra = dict(extra)

    def _call_of(self, index: object, call_id: str, name: str) -> _Call:
        """The call that a piece belongs to; a new one where it begins one."""
        if isinstance(index, int) and not isinstance(index, bool):
            call = self._by_index.get(index)
            # an index that is always 0: another id together with a name begins another call. An id alone does
            # not, since some endpoints make up a new one for each piece.
            if call is None or (call_id and name and call.id and call.name and call.id != call_id):
                call = self._by_index[index] = self._new_call()
            return call
        for call in self._calls:
            if call_id and call.id == call_id:
                return call
        if name or not self._calls:
            return self._new_call()
        return self._calls[-1]

    def _new_call(self) -> _Call:
        if len(self._calls) >= MOST_CALLS:
            raise ValueError(f"it makes more than {MOST_CALLS} calls at once")
        self._calls.append(_Call())
        return self._calls[-1]

    def _count(self, characters: int) -> None:
        self.characters += characters
        if self.characters > MOST_CHARACTERS:
            raise ValueError(f"it is longer than {MOST_CHARACTERS} characters")

    def _take_usage(self, usage: object) -> None:
        if not isinstance(usage, Mapping):
            return
        total = usage.get("total_tokens")
        if not _is_count(total):
            parts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
            total = sum(part for part in parts if isinstance(part, int) and _is_count(part))
        if isinstance(total, int) and total:
            self.tokens = total


def sound_text(pieces: Iterable[str]) -> str:
    """The pieces as one text that UTF-8 can carry.

    JSON can carry half of a surrogate pair, and a stream can be cut between the halves.
    """
    text = "".join(pieces)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _content(value: object) -> str:
    """The text of a ``content``, which may be a list of parts."""
    if isinstance(value, list):
        parts = (part for part in value if isinstance(part, Mapping) and part.get("type") == "text")
        return "".join(_string(part.get("text")) for part in parts)
    return _string(value)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
