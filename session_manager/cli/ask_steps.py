"""The steps of a conversation as they come: for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.syntax import Syntax

from ..ask.conversation import Watcher
from ..ask.streaming import Delta, Reply, ToolCall
from ..execution import Execution
from ..outputs import strip_escapes
from .live import LiveOutput
from .pictures import PictureFiles
from .run import describe, say_how_it_ended

DIM, NORMAL = "\x1b[2m", "\x1b[0m"
PROMPT, CONTINUED = ">>> ", "... "


class ShownSteps(Watcher):
    """What the model says and runs, on standard output, between the outputs that ``live`` shows."""

    def __init__(self, live: LiveOutput) -> None:
        self._live = live
        self._stdout = live.stdout
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._dim = False

    def on_delta(self, delta: Delta) -> None:
        """See :meth:`Watcher.on_delta`."""
        if reasoning := strip_escapes(delta.reasoning):
            if not self._dim:
                self._end_line()
                self._dimmed(True)
            self._stdout.write(reasoning)
        if text := strip_escapes(delta.text):
            if self._dim:
                self._dimmed(False)
                self._end_line()
            self._stdout.write(text)

    def on_turn(self, reply: Reply, *, complete: bool) -> None:
        """See :meth:`Watcher.on_turn`."""
        self._dimmed(False)
        self._end_line()

    def on_answer(self, reply: Reply) -> None:
        """See :meth:`Watcher.on_answer`."""
        self._dimmed(False)
        self._end_line()

    def on_code(self, code: str) -> None:
        """See :meth:`Watcher.on_code`."""
        self._live.showed_error = False
        code = strip_escapes(code).strip("\n")
        if self._stdout.is_terminal:
            self._end_line()
            shown = Syntax(
                code, "python", theme="ansi_dark", background_color="default", line_numbers=True, word_wrap=True
            )
            self._console.print(shown)
        else:
            self._stdout.write_line(PROMPT + f"\n{CONTINUED}".join(code.split("\n")))

    def on_execution(self, execution: Execution) -> None:
        """See :meth:`Watcher.on_execution`."""
        self._end_line()
        say_how_it_ended(execution, self._live)

    def on_unreadable(self, call: ToolCall, reason: str) -> None:
        """See :meth:`Watcher.on_unreadable`."""
        self._live.say(f"The model is told: {reason}")

    def on_notice(self, sentence: str) -> None:
        """See :meth:`Watcher.on_notice`."""
        self._live.say(strip_escapes(sentence))

    def _dimmed(self, wanted: bool) -> None:
        """What was thought rather than said looks so, where there are colours."""
        if wanted != self._dim and self._stdout.colours:
            mid_line = self._stdout.cursor.mid_line
            self._stdout.write_raw(DIM if wanted else NORMAL)
            self._stdout.cursor.mid_line = mid_line
        self._dim = wanted

    def _end_line(self) -> None:
        if self._stdout.cursor.mid_line:
            self._stdout.write("\n")


class JsonSteps(Watcher):
    """A JSON object on a line for each thing that happens."""

    def __init__(self, session: str, pictures: PictureFiles) -> None:
        self._session = session
        self._pictures = pictures
        self._step = 0
        self._code = ""

    def on_turn(self, reply: Reply, *, complete: bool) -> None:
        """See :meth:`Watcher.on_turn`."""
        self._step += 1
        self._print(
            "thought", text=reply.text, reasoning=reply.reasoning or None, calls=len(reply.calls), complete=complete
        )

    def on_answer(self, reply: Reply) -> None:
        """See :meth:`Watcher.on_answer`."""
        self._print("answer", text=reply.text, reasoning=reply.reasoning or None)

    def on_code(self, code: str) -> None:
        """See :meth:`Watcher.on_code`."""
        self._code = code

    def on_execution(self, execution: Execution) -> None:
        """See :meth:`Watcher.on_execution`."""
        self._print("cell", code=self._code, **describe(execution, self._session, self._pictures))

    def on_unreadable(self, call: ToolCall, reason: str) -> None:
        """See :meth:`Watcher.on_unreadable`."""
        self._print("unreadable", arguments=call.arguments, reason=reason)

    def on_notice(self, sentence: str) -> None:
        """See :meth:`Watcher.on_notice`."""
        self._print("notice", text=sentence)

    def _print(self, kind: str, **fields: object) -> None:
        print(json.dumps({"type": kind, "step": self._step, **fields}), flush=True)


def print_end(**fields: object) -> None:
    """The last JSON object: how it ended."""
    print(json.dumps({"type": "end", **fields}), file=sys.stdout, flush=True)
