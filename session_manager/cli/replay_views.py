"""What is seen of replays while they run: lines, a bar on a terminal, several bars, or records for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from ..execution import readable_size
from ..outputs import strip_escapes
from .exits import complain
from .live import SafeStream
from .replay_run import (
    DIFFERENT,
    NOT_REPLAYED,
    STOPPED,
    STYLES,
    CellResult,
    Replay,
    View,
    Wanted,
    Written,
    first_line,
)

LONGEST_NAME = 30
"""Characters of a notebook's name before its cells."""


def choose_view(sources: Sequence[Path], *, as_json: bool) -> View:
    """What suits standard output, and how many notebooks there are."""
    if as_json:
        return Records()
    if not Console().is_terminal:
        return Lines(sources)
    return Together(sources) if len(sources) > 1 else Bar(sources)


class Lines:
    """A line for each cell that is done with, as it is in files and pipes."""

    def __init__(self, sources: Sequence[Path]) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.errors = SafeStream(sys.stderr)
        self.several = len(sources) > 1
        self.name_width = min(LONGEST_NAME, max(len(str(source)) for source in sources)) if self.several else 0

    def begin(self, run: Replay) -> None:
        """See :class:`View`."""

    def begin_cell(self, run: Replay, number: int, cell: NotebookNode) -> None:
        """See :class:`View`."""

    def memory(self, run: Replay, used: int) -> None:
        """See :class:`View`."""

    def end(self, run: Replay) -> None:
        """See :class:`View`."""

    def end_cell(self, run: Replay, result: CellResult) -> None:
        """See :class:`View`."""
        self.console.print(self.line(run, result), soft_wrap=True)
        self.explain(run, result)

    def explain(self, run: Replay, result: CellResult) -> None:
        """What there is to say of a cell on standard error: what happened to its session, and why it failed."""
        if result.execution is None or result.outcome == STOPPED:
            return
        texts = [result.execution.notice] if result.execution.notice else []
        if result.outcome == DIFFERENT:
            texts.append("\n".join(map(str, result.differences)))
        elif result.failed:
            texts.append(result.execution.text)
        if texts and self.several:
            texts.insert(0, f"{run.wanted.source}, cell {result.number}:")
        if texts:
            self.complain(texts)

    def complain(self, texts: Sequence[str]) -> None:
        """Say something on standard error."""
        for text in texts:
            self.errors.write_line(text)

    def line(self, run: Replay, result: CellResult) -> Text:
        """A cell that is done with: number, first line, time, outcome; before them, of several notebooks, which."""
        text = Text(f"{self.name(run.wanted.source)}  " if self.several else "")
        text.append(f"{self.title(run, result.number, result.cell)}  ")
        seconds = None if result.execution is None else result.execution.duration
        text.append(" " * 11 if seconds is None else f"{seconds:7.1f} s  ", "dim")
        return text.append(result.outcome, STYLES.get(result.outcome, "bold red"))

    def name(self, source: Path) -> str:
        """A notebook's name, in a column."""
        name = strip_escapes(str(source))
        return f"{name if len(name) <= self.name_width else f'…{name[1 - self.name_width :]}':<{self.name_width}}"

    def title(self, run: Replay, number: int, cell: NotebookNode) -> str:
        """A cell's number and its first line, in a column."""
        first, total = first_line(cell), len(run.cells)
        room = max(20, min(60, self.console.width - 36 - self.name_width))
        first = first if len(first) <= room else f"{first[: room - 1]}…"
        return f"[{number:>{len(str(total))}}/{total}] {first:<{room}}"

    def wrote(self, run: Replay, written: Written) -> None:
        """See :class:`View`. Of several notebooks a table says it all at the end."""
        if self.several:
            return
        failed = f", {run.failed} failed" if run.failed else ""
        print(f"{len(run.executed)} of {len(run.cells)} cells run in {run.seconds:.1f} s{failed}")
        if run.check is not None:
            print(f"{run.check.compared - run.different} of {run.check.compared} cells put out what was recorded")
        print(f"Notebook: {written.notebook}")
        if written.images:
            print(f"Images:   {written.images[0].parent} ({len(written.images)})")
        if written.html is not None:
            print(f"Report:   {written.html}")
        sys.stdout.flush()

    def failed(self, wanted: Wanted, message: str) -> None:
        """See :class:`View`."""
        self.complain([complaint(wanted, message)])


class Bar(Lines):
    """Lines, and below them a bar: cells done, elapsed time, memory, and the first line of the cell that runs."""

    def __init__(self, sources: Sequence[Path]) -> None:
        super().__init__(sources)
        self.bars = make_bars(self.console, named=self.several)
        self.rows: dict[Replay, TaskID] = {}

    def begin(self, run: Replay) -> None:
        """See :class:`View`."""
        name = self.name(run.wanted.source) if self.several else ""
        total = sum(run.is_wanted(number) for number in range(1, len(run.cells) + 1))
        self.rows[run] = self.bars.add_task(name, total=total, memory="", line="")
        self.bars.start()

    def begin_cell(self, run: Replay, number: int, cell: NotebookNode) -> None:
        """See :class:`View`."""
        self.bars.update(self.rows[run], line=f"[{number}/{len(run.cells)}] {first_line(cell)}")

    def memory(self, run: Replay, used: int) -> None:
        """See :class:`View`."""
        if run in self.rows:
            self.bars.update(self.rows[run], memory=readable_size(used))

    def end_cell(self, run: Replay, result: CellResult) -> None:
        """See :class:`View`."""
        self.bars.advance(self.rows[run])
        self.bars.console.print(self.line(run, result), soft_wrap=True)
        self.explain(run, result)

    def complain(self, texts: Sequence[str]) -> None:
        """See :class:`Lines`. On a terminal the bars are taken away meanwhile."""
        if not self.errors.is_terminal or not self.bars.live.is_started:
            super().complain(texts)
            return
        self.bars.stop()
        try:
            super().complain(texts)
        finally:
            self.bars.start()

    def end(self, run: Replay) -> None:
        """See :class:`View`."""
        self.bars.remove_task(self.rows.pop(run))
        if not self.rows:
            self.bars.stop()


class Together(Bar):
    """Several notebooks: a bar for each that runs, and a line for each that is done with; of cells those that fail."""

    def end_cell(self, run: Replay, result: CellResult) -> None:
        """See :class:`View`."""
        if result.failed:
            super().end_cell(run, result)
            return
        self.bars.advance(self.rows[run])
        self.explain(run, result)

    def end(self, run: Replay) -> None:
        """See :class:`View`."""
        super().end(run)
        text = Text(f"{self.name(run.wanted.source)}  {len(run.executed)} of {len(run.cells)} cells run in ")
        text.append(f"{run.seconds:.1f} s  ").append(run.outcome, STYLES.get(run.outcome, "bold red"))
        self.bars.console.print(text, soft_wrap=True)


class Records:
    """A JSON object for each cell, and one for each notebook at its end."""

    def begin(self, run: Replay) -> None:
        """See :class:`View`."""

    def begin_cell(self, run: Replay, number: int, cell: NotebookNode) -> None:
        """See :class:`View`."""

    def memory(self, run: Replay, used: int) -> None:
        """See :class:`View`."""

    def end(self, run: Replay) -> None:
        """See :class:`View`."""

    def end_cell(self, run: Replay, result: CellResult) -> None:
        """See :class:`View`. What failed is said on standard error too, as without JSON."""
        execution = result.execution
        error = execution.error if execution is not None else None
        fields = {
            "source": str(run.wanted.source),
            "cell": result.number,
            "id": result.cell.get("id"),
            "outcome": result.outcome,
            "status": execution and execution.status,
            "duration": execution and round(execution.duration, 6),
            "memory": result.memory,
            "error": error and {"name": error.name, "value": error.value},
            "differences": [{"where": one.where, "what": one.what} for one in result.differences],
        }
        print(json.dumps(fields), flush=True)
        Lines([run.wanted.source]).explain(run, result)

    def wrote(self, run: Replay, written: Written) -> None:
        """See :class:`View`."""
        fields = {
            "source": str(run.wanted.source),
            "outcome": run.outcome,
            "cells": len(run.cells),
            "run": len(run.executed),
            "failed": run.failed,
            "compared": None if run.check is None else run.check.compared,
            "different": None if run.check is None else run.different,
            "stopped": run.stopped,
            "duration": round(run.seconds, 6),
            "memory": run.peak,
            "notebook": str(written.notebook),
            "images": list(map(str, written.images)),
            "html": None if written.html is None else str(written.html),
        }
        print(json.dumps(fields), flush=True)

    def failed(self, wanted: Wanted, message: str) -> None:
        """See :class:`View`."""
        print(json.dumps({"source": str(wanted.source), "outcome": NOT_REPLAYED, "message": message}), flush=True)
        complain(complaint(wanted, message))


def complaint(wanted: Wanted, message: str) -> str:
    """What to say of one of several notebooks that could not be replayed."""
    return f"error: {message}" if str(wanted.source) in message else f"error: {wanted.source}: {message}"


def make_bars(console: Console, *, named: bool) -> Progress:
    """Bars below what is printed, which go when they are done."""
    name = [TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))] if named else []
    return Progress(
        *name,
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[memory]}", markup=False, table_column=Column(no_wrap=True, min_width=8)),
        TextColumn(
            "{task.fields[line]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
        refresh_per_second=4,
    )
