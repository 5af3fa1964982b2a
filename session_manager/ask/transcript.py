"""A conversation as a notebook: the question, what the model said, its code with what it put out, the answer."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..execution import Execution
from ..journal_notebook import METADATA_KEY
from ..notebook import record, write_notebook
from .conversation import Watcher
from .streaming import Reply, ToolCall

SUFFIX = ".ipynb"
LONGEST_ARGUMENTS = 10_000
"""Characters that are written down of a call that can't be read."""
BACKTICKS = re.compile(r"`{3,10000}")


class Transcript(Watcher):
    """Writes down a conversation as it goes, after every step, each time the whole file or nothing.

    ``replay`` can run it: code that failed is tagged as such, and files that lie beside the notebook are named in it.
    """

    def __init__(
        self, path: Path, question: str, *, model: str, session: str, files: Mapping[str, Path] | None = None
    ) -> None:
        """``files``: those of this machine that were put into the session, by their names there.

        :raises OSError: it can't be written.
        """
        self.path = path
        self._notebook: NotebookNode = nbformat.v4.new_notebook()
        self._notebook.metadata = nbformat.from_dict(
            {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
                METADATA_KEY: {
                    "model": _sound(model),
                    "session": session,
                    "files": beside(path.parent, files or {}),
                },
            }
        )
        self._say("question", question)
        self.write()

    def write(self) -> None:
        """Write it as it is now.

        :raises OSError: it can't be written.
        """
        write_notebook(self._notebook, self.path)

    def on_turn(self, reply: Reply, *, complete: bool) -> None:
        """See :meth:`Watcher.on_turn`."""
        self._thought(reply)
        self._say("thought", reply.text)
        if not complete:
            self._say("notice", "*The reply was cut off here.*")
        self.write()

    def on_answer(self, reply: Reply) -> None:
        """See :meth:`Watcher.on_answer`."""
        self._thought(reply)
        self._say("answer", reply.text)
        self.write()

    def on_code(self, code: str) -> None:
        """See :meth:`Watcher.on_code`. Written before it runs: it may be what ends everything."""
        self._notebook.cells.append(nbformat.v4.new_code_cell(code))
        self.write()

    def on_execution(self, execution: Execution) -> None:
        """See :meth:`Watcher.on_execution`."""
        cell = self._notebook.cells[-1]
        record(cell, execution)
        if execution.status != "ok":
            cell.metadata["tags"] = ["raises-exception"]
        self.write()

    def on_unreadable(self, call: ToolCall, reason: str) -> None:
        """See :meth:`Watcher.on_unreadable`."""
        arguments = call.arguments[:LONGEST_ARGUMENTS]
        # longer than any fence in it, so that what it holds stays in it
        fence = "`" * (1 + max((len(found) for found in BACKTICKS.findall(arguments)), default=2))
        self._say("unreadable", f"A call that can't be run: {reason}\n\n{fence}\n{arguments}\n{fence}")
        self.write()

    def on_notice(self, sentence: str) -> None:
        """See :meth:`Watcher.on_notice`."""
        self._say("notice", sentence)
        self.write()

    def _thought(self, reply: Reply) -> None:
        if reply.reasoning.strip():
            self._say("reasoning", "\n".join(f"> {line}" for line in reply.reasoning.strip().split("\n")))

    def _say(self, role: str, text: str) -> None:
        if text.strip():
            cell = nbformat.v4.new_markdown_cell(_sound(text.strip()))
            cell.metadata[METADATA_KEY] = {"role": role}
            self._notebook.cells.append(cell)


def claim(wanted: Path) -> Path:
    """Make an empty file of this name, or where there is one of ``name-2``, ``name-3``; its path.

    :raises OSError: none can be made.
    """
    path, number = wanted, 1
    while True:
        try:
            path.open("x").close()
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        else:
            return path


def beside(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """The names of those files that a notebook in the folder can name, since they lie there by the same names."""
    root = folder.resolve()
    return [
        name
        for name, path in files.items()
        if (resolved := path.resolve()).is_relative_to(root) and resolved == (root / name).resolve()
    ]


def _sound(text: str) -> str:
    """The text as UTF-8 can carry it and readers of notebooks take it."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
