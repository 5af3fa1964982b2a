"""The loop: the model speaks and calls, its code runs, it reads what came out, until it answers or a limit is reached.

It knows neither engines nor HTTP: what runs a cell and what streams a reply are given to it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Literal, Protocol, cast

from ..errors import EndpointError, EndpointRefused
from ..execution import Execution
from ..model_code import code_of
from ..tool_description import CODE, TOOL_NAME, tool_schema
from .pictures import data_urls
from .streaming import CHARACTERS_PER_TOKEN, Delta, Reply, ToolCall

Message = dict[str, object]
Outcome = Literal["answered", "steps", "tokens", "stopped"]
"""How a conversation ended, where nothing failed: with an answer, at a limit, or because a cell was stopped."""
RunCell = Callable[[str], Awaitable[tuple[Execution, bool]]]
"""Runs code; whether someone stopped it comes with what it did."""

MOST_UNREADABLE = 3
"""Turns in a row without one call that can be read."""
MOST_PICTURES = 4
"""That go to the model after one turn."""
PICTURE_TOKENS = 1000
"""About what a picture counts for, where an endpoint does not say."""
LONGEST_ECHO = 2000
"""Characters of arguments that can't be read that are given back to the model."""
SYSTEM = """\
You are a data analyst. You answer the user's question by running Python code with the tool run_python, as often as \
you need. Look at the data before you rely on them. Before a call, say in a sentence what you want to find out. \
Where code fails, read the error, mend the code and run it again. Base what you say on what the code put out, and \
never invent results. End with an answer for the user that stands by itself, in the language of the question."""
SUM_UP = (
    "No more code can be run in this conversation. Answer the question now from what you have found,"
    " and say what remains open."
)
NOTHING = "The code ran and put nothing out."


class Asks(Protocol):
    """What speaks to a model."""

    def stream(
        self, messages: Sequence[Message], tools: Sequence[dict[str, object]], reply: Reply
    ) -> AsyncIterator[Delta]:
        """See :meth:`~session_manager.ask.endpoint.Endpoint.stream`."""


class Watcher:
    """Is told what happens, as it happens; each method does nothing here."""

    def on_delta(self, delta: Delta) -> None:
        """The model said or thought something."""

    def on_turn(self, reply: Reply, *, complete: bool) -> None:
        """The model has said what it has to say, and its calls come next; not ``complete``: it was cut off."""

    def on_answer(self, reply: Reply) -> None:
        """The model has said what it has to say, and called nothing."""

    def on_code(self, code: str) -> None:
        """Code of the model's begins to run."""

    def on_execution(self, execution: Execution) -> None:
        """It has run."""

    def on_unreadable(self, call: ToolCall, reason: str) -> None:
        """A call of the model's can't be run."""

    def on_notice(self, sentence: str) -> None:
        """Something that the user should know."""


class _OutOfTokens(Exception):
    """The limit was reached in the middle of a reply."""


class Conversation:
    """One question, and what the model does about it."""

    def __init__(
        self,
        endpoint: Asks,
        run_cell: RunCell,
        watchers: Iterable[Watcher],
        *,
        description: str,
        max_steps: int,
        max_tokens: int,
        images: bool,
    ) -> None:
        """``description``: of the tool, see :mod:`session_manager.tool_description`. ``max_steps``: turns in which the
        model may call. ``max_tokens``: of all requests and replies together. ``images``: the model is
        shown the pictures, as long as the endpoint takes them.
        """
        self.steps = 0
        """Turns with calls so far."""
        self.tokens = 0
        """Spent so far, as the endpoint counts them; estimated where it does not."""
        self._endpoint = endpoint
        self._run_cell = run_cell
        self._watchers = tuple(watchers)
        self._tools = (tool_schema(description),)
        self._max_steps = max_steps
        self._max_tokens = max_tokens
        self._images = images
        self._messages: list[Message] = [{"role": "system", "content": SYSTEM}]
        self._unreadable = 0

    async def ask(self, question: str) -> Outcome:
        """Put the question, and see to it that it is answered. Once for each conversation.

        :raises EndpointError: the endpoint fails, or the model's replies can't be used.
        :raises SandboxError: the session fails, see :meth:`~session_manager.Session.execute`.
        """
        self._messages.append({"role": "user", "content": question})
        try:
            while self.steps < self._max_steps:
                reply = await self._turn(self._tools)
                if not reply.has_calls:
                    return self._answered(reply, "answered")
                self.steps += 1
                if await self._run_calls(reply):
                    return "stopped"
                if self.tokens >= self._max_tokens:
                    raise _OutOfTokens
            self._notice(f"The limit of {self._max_steps} steps (--max-steps) is reached: the model has to sum up.")
            self._messages.append({"role": "user", "content": SUM_UP})
            reply = await self._turn(())
            if reply.has_calls and not reply.text.strip():
                self._notice("The model went on calling instead of summing up.")
                return "steps"
            return self._answered(reply, "steps")
        except _OutOfTokens:
            self._notice(f"The limit of {self._max_tokens} tokens (--max-tokens) is reached; {self.tokens} were spent.")
            return "tokens"

    def _answered(self, reply: Reply, outcome: Outcome) -> Outcome:
        if not reply.text.strip():
            raise EndpointError("The model ended without an answer.", "Ask again, or try another model.")
        for watcher in self._watchers:
            watcher.on_answer(reply)
        if reply.finish_reason == "length":
            self._notice("The answer is cut off: it has reached the longest reply that the endpoint gives.")
        elif reply.finish_reason == "content_filter":
            self._notice("The answer is cut off: the endpoint's content filter has stopped it.")
        return outcome

    def _notice(self, sentence: str) -> None:
        for watcher in self._watchers:
            watcher.on_notice(sentence)

    # -- the model ----------------------------------------------------------------------------------------------

    async def _turn(self, tools: Sequence[dict[str, object]]) -> Reply:
        """One reply; asked for again without pictures where the endpoint does not take them."""
        try:
            return await self._reply(tools)
        except EndpointRefused as error:
            if not self._drop_pictures():
                raise
            self._notice(f"{error.message} Going on without pictures.")
            return await self._reply(tools)

    async def _reply(self, tools: Sequence[dict[str, object]]) -> Reply:
        reply = Reply()
        stream = cast("AsyncGenerator[Delta]", self._endpoint.stream(self._messages, tools, reply))
        complete = False
        try:
            async with aclosing(stream):
                async for delta in stream:
                    for watcher in self._watchers:
                        watcher.on_delta(delta)
                    if self.tokens + reply.characters // CHARACTERS_PER_TOKEN > self._max_tokens:
                        raise _OutOfTokens
            complete = True
        finally:
            if complete or reply.characters:
                self.tokens += reply.tokens or self._estimate() + reply.characters // CHARACTERS_PER_TOKEN
            if reply.characters and not complete:
                for watcher in self._watchers:
                    watcher.on_turn(reply, complete=False)
        return reply

    def _estimate(self) -> int:
        """About how many tokens the messages are."""
        characters = pictures = 0
        for message in self._messages:
            content = message.get("content")
            if isinstance(content, list):
                pictures += len(content)
            else:
                characters += len(str(content or "")) + len(str(message.get("tool_calls") or ""))
        return characters // CHARACTERS_PER_TOKEN + pictures * PICTURE_TOKENS

    def _drop_pictures(self) -> bool:
        """Take the pictures out of the messages, for good; whether there were any."""
        self._images = False
        found = False
        for message in self._messages:
            if isinstance(message.get("content"), list):
                message["content"] = "(The pictures can't be shown to you.)"
                found = True
        return found

    # -- its calls ----------------------------------------------------------------------------------------------

    async def _run_calls(self, reply: Reply) -> bool:
        """Run the calls of a reply, one after another; whether someone stopped one.

        :raises EndpointError: none of them could be read, nor any of those before them.
        """
        for watcher in self._watchers:
            watcher.on_turn(reply, complete=True)
        read = [(call, *_read(call)) for call in reply.calls]
        message: Message = {"role": "assistant", "content": reply.text or None}
        if reply.reasoning:
            # models that think between calls go on from what they thought
            message[reply.reasoning_name] = reply.reasoning
        message["tool_calls"] = [_echo(call, code) for call, code, _ in read]
        self._messages.append(message)
        pictures: list[str] = []
        for call, code, reason in read:
            if code is None:
                answer = reason
                for watcher in self._watchers:
                    watcher.on_unreadable(call, reason)
            else:
                execution, stopped = await self._run(code)
                if stopped:
                    return True
                answer = execution.text or NOTHING
                pictures += data_urls(execution) if self._images else ()
            self._messages.append({"role": "tool", "tool_call_id": call.id, "content": answer})
        if pictures:
            self._messages.append(_shown(pictures))
        self._unreadable = 0 if any(code is not None for _, code, _ in read) else self._unreadable + 1
        if self._unreadable >= MOST_UNREADABLE:
            raise EndpointError(
                f"The model has made {self._unreadable} calls in a row that can't be run. {read[-1][2]}",
                "Ask again, or try a model that is better at calling tools.",
            )
        return False

    async def _run(self, code: str) -> tuple[Execution, bool]:
        for watcher in self._watchers:
            watcher.on_code(code)
        execution, stopped = await self._run_cell(code)
        for watcher in self._watchers:
            watcher.on_execution(execution)
        return execution, stopped


def _read(call: ToolCall) -> tuple[str | None, str]:
    """The code of a call; or None, and the sentence that tells the model why."""
    if call.name.rpartition(".")[2] != TOOL_NAME:
        return None, f"There is no tool {call.name[:100]!r}: the only one is {TOOL_NAME}."
    try:
        return code_of(call.arguments), ""
    except ValueError as error:
        return None, str(error)


def _echo(call: ToolCall, code: str | None) -> Message:
    """The call as the model gets it back. Endpoints parse it, so its arguments have to be JSON now."""
    arguments = {CODE: code} if code is not None else {"unreadable": call.arguments[:LONGEST_ECHO]}
    echoed: Message = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name or TOOL_NAME, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }
    if call.extra is not None:
        echoed["extra_content"] = dict(call.extra)
    return echoed


def _shown(pictures: Sequence[str]) -> Message:
    """The message that shows pictures: what a tool returns can only be text."""
    more = len(pictures) - MOST_PICTURES
    text = "The pictures that the code has shown, in order."
    if more > 0:
        text += f" {more} more are left out."
    parts: list[Message] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures[:MOST_PICTURES]]
    return {"role": "user", "content": parts}
