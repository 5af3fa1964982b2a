"""The command ``replay``: a notebook's cells, one after another, in one fresh session."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from nbformat import NotebookNode
from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..errors import NotebookError
from ..execution import Execution
from ..notebook import attached_files, read_notebook, record, write_notebook
from ..outputs import Display, Result, strip_escapes
from ..parameters import parse_parameters, set_parameters
from ..replay.sameness import Tolerance
from ..session import Session
from ..settings import Settings
from .cells import open_manager, run_cell
from .exits import CTRL_C, FAILED
from .live import SafeStream
from .pictures import SUFFIXES, images_in
from .replay_check import Check
from .transfers import local_files, put_files

SKIP_TAGS = frozenset(("skip", "skip-execution", "nbval-skip"))
MAY_RAISE_TAGS = frozenset(("raises-exception", "nbval-raises-exception"))
MOST_IMAGES = 100
"""Of one cell that become files; all that are kept are in the notebook."""
DIFFERENT = "DIFFERENT"
WORDS = {
    "ok": "ok",
    "error": "FAILED",
    "interrupted": "TIMED OUT",
    "killed": "KILLED",
    "out_of_memory": "OUT OF MEMORY",
    "died": "DIED",
}
STYLES = {"ok": "green", "raised, as its tag says": "green", "skipped": "dim"}


@dataclass(slots=True)
class Replay:
    """One run of a notebook. :meth:`run` fills it; :meth:`write` works whenever that ended."""

    notebook: NotebookNode
    output: Path
    check: Check | None = None
    """What the outputs are compared with, where they are."""
    as_json: bool = False
    """A JSON object for each cell, instead of lines for people."""
    executions: dict[int, Execution] = field(default_factory=dict)
    """By the cell's position in the notebook."""
    failed: list[int] = field(default_factory=list)
    """Numbers of the code cells that failed, or put out something else than was recorded, from 1."""
    stopped: bool = False
    """Ctrl-C ended it."""
    console: Console = field(default_factory=lambda: Console(highlight=False, markup=False, emoji=False))

    @property
    def different(self) -> int:
        """How many cells put out something else than was recorded."""
        return len(self.check.found) if self.check is not None else 0

    @property
    def cells(self) -> list[tuple[int, NotebookNode]]:
        """The code cells that have code, with their positions in the notebook."""
        return [
            (position, cell)
            for position, cell in enumerate(self.notebook.cells)
            if cell.cell_type == "code" and cell.source.strip()
        ]

    async def run(self, session: Session, seconds: float | None, cells: range, *, keep_going: bool) -> None:
        """Run those cells, by their numbers from 1, until one fails or all are done.

        :raises SandboxError: the session can't be had any more.
        """
        errors = SafeStream(sys.stderr)
        total = len(self.cells)
        for number, (position, cell) in enumerate(self.cells, 1):
            if number not in cells:
                continue
            title = self.title(number, total, cell)
            if SKIP_TAGS & set(cell.metadata.get("tags", ())):
                self.say(number, cell, "skipped", title)
                continue
            with running(self.console, title, quiet=self.as_json):
                execution, self.stopped = await run_cell(session, cell.source, seconds)
            self.executions[position] = execution
            outcome = WORDS[execution.status]
            if self.stopped:
                outcome = "STOPPED"
            elif execution.status == "error" and MAY_RAISE_TAGS & set(cell.metadata.get("tags", ())):
                outcome = "raised, as its tag says"
            if self.check is not None and outcome in STYLES and self.check.compare(number, position, execution):
                outcome = DIFFERENT
            self.say(number, cell, outcome, title, execution)
            if self.stopped:
                return
            if execution.notice:
                errors.write_line(execution.notice)
            if outcome not in STYLES:
                self.failed.append(number)
                if outcome == DIFFERENT and self.check is not None:
                    errors.write_line(self.check.text(number))
                else:
                    errors.write_line(execution.text)
                if not keep_going and outcome != DIFFERENT:
                    return

    def say(
        self, number: int, cell: NotebookNode, outcome: str, title: str, execution: Execution | None = None
    ) -> None:
        """A cell is done with."""
        if not self.as_json:
            seconds = None if execution is None else execution.duration
            self.console.print(self.line(title, outcome, seconds), soft_wrap=True)
            return
        found = self.check.found.get(number, []) if self.check is not None else []
        error = execution.error if execution is not None else None
        fields = {
            "cell": number,
            "id": cell.get("id"),
            "outcome": outcome,
            "status": execution and execution.status,
            "duration": execution and round(execution.duration, 6),
            "error": error and {"name": error.name, "value": error.value},
            "differences": [{"where": one.where, "what": one.what} for one in found],
        }
        print(json.dumps(fields), flush=True)

    def title(self, number: int, total: int, cell: NotebookNode) -> str:
        """A cell as the progress lines name it: its number and its first line."""
        lines = (line for line in cell.source.split("\n") if line.strip())
        first = strip_escapes(next(lines, "")).strip()
        room = max(20, min(60, self.console.width - 36))
        first = first if len(first) <= room else f"{first[: room - 1]}…"
        return f"[{number:>{len(str(total))}}/{total}] {first:<{room}}"

    @staticmethod
    def line(title: str, outcome: str, seconds: float | None = None) -> Text:
        """The progress line of a cell that is done with."""
        text = Text(f"{title}  ")
        text.append(" " * 11 if seconds is None else f"{seconds:7.1f} s  ", "dim")
        return text.append(outcome, STYLES.get(outcome, "bold red"))

    def write(self) -> list[Path]:
        """Write the notebook with what was run, and its images as files; the images' paths.

        :raises OSError: something can't be written.
        """
        for position, execution in self.executions.items():
            record(self.notebook.cells[position], execution)
        write_notebook(self.notebook, self.output)
        folder = self.output.with_name(f"{self.output.stem}_files")
        written = []
        for number, (position, _) in enumerate(self.cells, 1):
            outputs = self.executions[position].outputs if position in self.executions else ()
            shown = [output for output in outputs if isinstance(output, Display | Result)]
            images = (image for output in shown for image in images_in(output.data))
            for image_number, (mime, content) in enumerate(islice(images, MOST_IMAGES), 1):
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"cell-{number:02}-{image_number}{SUFFIXES[mime]}"
                path.write_bytes(content)
                written.append(path)
        for number, image_number, content in self.check.pictures() if self.check is not None else ():
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"cell-{number:02}-compared-{image_number}.png"
            path.write_bytes(content)
            written.append(path)
        return written


async def replay(
    settings: Settings,
    path: Path,
    output: Path,
    seconds: float | None,
    *,
    keep_going: bool,
    beside: Sequence[Path] = (),
    parameters: Sequence[str] = (),
    first: int = 1,
    last: int | None = None,
    key: str | None = None,
    check: Tolerance | None = None,
    as_json: bool = False,
) -> int:
    """Run a notebook or script in a fresh session and write what came of it; the command's exit code.

    ``beside``: files of this machine that are put beside those that the notebook itself names. ``parameters``: what it
    is filled with, as ``name=value``. ``first``, ``last``: the numbers of the cells that are run, from 1. ``key``: a
    session that is used instead of a fresh one, and lives on. ``check``: what is put out is compared with what the
    notebook has recorded, this exactly.

    :raises NotebookError: it can't be read, or asks for files that it can't have.
    :raises SandboxError: the session can't be started, or was lost; a file can't be put into it.
    """
    notebook = read_notebook(path)
    files = {file.name: file.path for file in attached_files(notebook, path.parent)} | local_files(beside)
    set_parameters(notebook, parse_parameters(parameters))
    run = Replay(notebook, output, None if check is None else Check(notebook, check), as_json)
    if first > len(run.cells) > 0:
        raise NotebookError(f"{path} has {len(run.cells)} cells with code, so none can be run from the {first}. on.")
    for _, cell in run.cells:
        if not SKIP_TAGS & set(cell.metadata.get("tags", ())):
            # what an earlier run left would look like this one's
            cell.outputs, cell.execution_count = [], None
    begin = time.monotonic()
    try:
        async with open_manager(settings) as (manager, progress):
            session = await (manager.throw_away() if key is None else manager.session(key))
            progress.stop()
            if first == 1:  # later cells find what earlier ones made of them
                await put_files(session.files, files)
            cells = range(first, (last or len(run.cells)) + 1)
            await run.run(session, seconds, cells, keep_going=keep_going)
    finally:
        if run.executions:
            report(run, run.write(), time.monotonic() - begin)
    if run.stopped:
        return CTRL_C
    return FAILED if run.failed else 0


def report(run: Replay, images: list[Path], seconds: float) -> None:
    """What was done, and where it is."""
    total, done = len(run.cells), len(run.executions)
    if run.as_json:
        fields = {
            "cells": total,
            "run": done,
            "failed": len(run.failed) - run.different,
            "compared": None if run.check is None else run.check.compared,
            "different": None if run.check is None else run.different,
            "stopped": run.stopped,
            "duration": round(seconds, 6),
            "notebook": str(run.output),
            "images": list(map(str, images)),
        }
        print(json.dumps(fields), flush=True)
        return
    failed = f", {len(run.failed) - run.different} failed" if len(run.failed) > run.different else ""
    print(f"{done} of {total} cells run in {seconds:.1f} s{failed}")
    if run.check is not None:
        print(f"{run.check.compared - run.different} of {run.check.compared} cells put out what was recorded")
    print(f"Notebook: {run.output}")
    if images:
        print(f"Images:   {images[0].parent} ({len(images)})")


def running(console: Console, title: str, *, quiet: bool) -> Status:
    """A spinner beside the title of a cell while it runs; nothing where that can't or must not be shown."""
    shown = console if console.is_terminal and not quiet else Console(quiet=True)
    return shown.status(Text(title.rstrip(), no_wrap=True, overflow="ellipsis"))
