"""The report of a replay: what of it is shown, and where it is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from nbformat import NotebookNode

from ..replacing import replacing
from ..replay.report import render
from ..replay.reported import Look, Report, ReportedCell, ReportedText
from ..settings import Settings
from .replay_run import DIFFERENT, SKIP_TAGS, STYLES, CellResult, Replay

NOT_RUN = "not run"


def write_report(run: Replay, settings: Settings, path: Path) -> None:
    """Write the report of a replay, wholly or not at all. ``settings`` are what it ran with.

    :raises OSError: it can't be written.
    """
    with replacing(path) as file:
        file.write(render(report_of(run, settings)).encode())


def report_of(run: Replay, settings: Settings) -> Report:
    """What a report shows of a replay."""
    isolated = settings.engine != "process"
    return Report(
        name=run.wanted.source.name,
        when=datetime.fromtimestamp(run.created, UTC),
        image=(settings.image or "default") if isolated else "none",
        engine=settings.engine if isolated else "process, without isolation",
        outcome=run.outcome,
        look=look(run.outcome),
        summary=summary(run),
        seconds=run.seconds,
        peak=run.peak,
        parameters=list(run.wanted.parameters),
        cells=list(reported_cells(run)),
    )


def summary(run: Replay) -> str:
    """How it went, in a sentence."""
    total = len(run.cells)
    parts = [f"{len(run.executed)} of {total} {'cell' if total == 1 else 'cells'} run"]
    if run.failed:
        parts.append(f"{run.failed} failed")
    if run.check is not None:
        parts.append(f"{run.check.compared - run.different} of {run.check.compared} put out what was recorded")
    if run.stopped:
        parts.append("stopped by Ctrl-C")
    if run.lost:
        parts.append("its session was lost")
    return f"{', '.join(parts)}."


def look(outcome: str) -> Look:
    """In which colour an outcome is shown."""
    return "neutral" if outcome in ("skipped", NOT_RUN) else "good" if outcome in STYLES else "bad"


def reported_cells(run: Replay) -> Iterator[ReportedCell | ReportedText]:
    """The notebook's cells in their order, those too that were not run."""
    numbers = {position: number for number, (position, _) in enumerate(run.cells, 1)}
    for position, cell in enumerate(run.notebook.cells):
        number = numbers.get(position)
        result = run.results.get(number) if number is not None else None
        if cell.cell_type != "code":
            yield ReportedText(cell.source, cell.cell_type == "markdown", cell.get("attachments", {}))
        elif result is not None and result.execution is not None:
            yield reported_cell(run, result)
        elif number is not None:
            yield not_run(cell, number, result)


def reported_cell(run: Replay, result: CellResult) -> ReportedCell:
    """A cell that was run."""
    execution = result.execution
    different = run.check is not None and result.outcome == DIFFERENT
    return ReportedCell(
        number=result.number,
        code=result.cell.source,
        outcome=result.outcome,
        look=look(result.outcome),
        seconds=None if execution is None else execution.duration,
        memory=result.memory,
        outputs=[dict(output) for output in result.cell.outputs],
        recorded=run.check.recorded(result.position) if run.check is not None and different else None,
        differences=result.differences,
        notice=None if execution is None else execution.notice,
    )


def not_run(cell: NotebookNode, number: int, result: CellResult | None) -> ReportedCell:
    """A cell that was left out, by its tag or because the replay ended before it."""
    outcome = NOT_RUN if result is None else result.outcome
    # what it has recorded is not of this run, unless it says that it is never run
    kept = [dict(output) for output in cell.outputs] if SKIP_TAGS & set(cell.metadata.get("tags", ())) else []
    return ReportedCell(number, cell.source, outcome, look(outcome), outputs=kept)
