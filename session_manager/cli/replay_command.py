"""The command ``replay`` as it is typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Debug, DockerHost, Engine, FilesToPut, Image, Json, Timeout, combine, seconds

REPLAY_CODES = """\
Exit codes:
0: every cell ran;
1: a cell failed, or --check found a difference;
2: wrong usage;
125: a notebook can't be read, or the sandbox itself failed;
130: Ctrl-C.
The cells that ran are written in each case.
Of several notebooks the worst counts: 130, then 125, then 1.
"""


def replay(
    context: typer.Context,
    notebooks: Annotated[
        list[Path],
        typer.Argument(
            metavar="NOTEBOOK...", show_default=False, help="An .ipynb, a script with # %% cells, or a journal."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.ipynb",
            show_default=False,
            help="Where the executed notebook goes; its images go into OUT_files. Of several, a folder. "
            "Default: NAME.out.ipynb beside the notebook.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="REPORT.html",
            show_default=False,
            help="Write a report as well, a page in one file; of several notebooks, into a folder. "
            "Needs the extra notebook.",
        ),
    ] = None,
    at_once: Annotated[
        int, typer.Option("-j", "--jobs", min=1, metavar="N", help="How many notebooks run at once.")
    ] = 1,
    file_to_put: FilesToPut = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="Fill a parameter, as papermill does: a cell after the one tagged parameters assigns it. "
            "Can be given several times.",
        ),
    ] = None,
    first: Annotated[
        int, typer.Option("--from", min=1, metavar="N", help="The first cell to run; needs --session.")
    ] = 1,
    last: Annotated[
        int | None, typer.Option("--until", min=1, metavar="N", show_default=False, help="The last cell to run.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            "-s",
            metavar="KEY",
            show_default=False,
            help="Run in the session of this key, which goes on living, with its variables; not in a fresh one.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare what the cells put out with what the notebook has recorded."),
    ] = False,
    float_tolerance: Annotated[
        float, typer.Option(min=0, max=1, metavar="RATIO", help="By how much numbers may differ under --check.")
    ] = 0.0,
    image_tolerance: Annotated[
        float, typer.Option(min=0, max=1, metavar="RATIO", help="By how much images may; needs the extra notebook.")
    ] = 0.04,
    as_json: Json = False,
    timeout: Timeout = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Don't stop at a cell that fails.")] = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Run every code cell of a notebook in one fresh session, and write the executed notebook.

    The notebook's metadata can name files, relative to the notebook, that are
    put into the session first: "docker_interpreter": {"files": ["data/a.csv"]}

    Cells tagged skip are left out; cells tagged raises-exception may raise.

    With --check, addresses, timings, names made by chance, the time of the
    replay itself and the order of dictionaries and sets may differ; all else
    has to be as it was recorded. Of errors, type and message are compared. Cells
    tagged nbval-ignore-output are not. Images that look different are written
    beside the notebook's, side by side.

    Several notebooks get a session each, and a table at the end. Ctrl-C
    interrupts the cells that run, and what was done is written.
    """
    from ..replay.sameness import Tolerance
    from .exits import SANDBOX_FAILED, run_async_to_exit
    from .replay import replay as run_notebooks
    from .replay_run import Wanted

    common = combine(context, engine, docker_host, config, debug, image)
    if first > 1 and session is None:
        raise typer.BadParameter("the cells before it have left their variables in no session.", param_hint="--from")
    if last is not None and last < first:
        raise typer.BadParameter(f"{last} comes before {first}.", param_hint="--until")
    sources = without_results(notebooks)
    if len(sources) > 1 and session is not None:
        raise typer.BadParameter("each of several notebooks gets a session of its own.", param_hint="--session")
    outputs = places(sources, output, "-o", ".ipynb", lambda source: source.with_name(f"{source.stem}.out.ipynb"))
    reports = places(sources, html, "--html", ".html", None)
    wanted = [
        Wanted(
            source,
            outputs[source],
            reports.get(source),
            seconds(timeout),
            keep_going,
            file_to_put or (),
            parameters or (),
            first,
            last,
            session,
            Tolerance(float_tolerance, image_tolerance) if check else None,
        )
        for source in sources
    ]
    run_async_to_exit(
        lambda: run_notebooks(common.settings(), wanted, at_once=at_once, as_json=as_json),
        debug=common.debug,
        failed=SANDBOX_FAILED,
    )


def without_results(notebooks: Sequence[Path]) -> list[Path]:
    """The notebooks, each once, without those that an earlier replay of one of them wrote, as ``*.ipynb`` names both.

    A notebook that is meant by itself is replayed whatever its name is.
    """
    from .exits import complain

    found = {located(notebook): notebook for notebook in notebooks}
    results = {
        place.with_name(f"{place.stem}.out.ipynb"): notebook
        for place, notebook in found.items()
        if place.with_name(f"{place.stem}.out.ipynb") in found
    }
    for place, notebook in results.items():
        complain(f"Left out: {found[place]} is what a replay of {notebook} writes.")
    return [notebook for place, notebook in found.items() if place not in results]


def places(
    sources: Sequence[Path],
    given: Path | None,
    option: str,
    suffix: str,
    default: Callable[[Path], Path] | None,
) -> dict[Path, Path]:
    """Where something goes that is written of each notebook: the file that was given, or a file in that folder.

    :raises typer.BadParameter: it is neither, or two would write over each other, or one over a notebook to be read.
    """
    if given is None:
        chosen = {} if default is None else {source: default(source) for source in sources}
    elif given.is_dir() or (len(sources) > 1 and given.suffix != suffix and not given.exists()):
        ending = ".out.ipynb" if suffix == ".ipynb" else suffix
        chosen = {source: given / f"{source.stem}{ending}" for source in sources}
    elif len(sources) > 1:
        raise typer.BadParameter(f"{given} should be a folder, for {len(sources)} notebooks.", param_hint=option)
    elif given.suffix != suffix:
        raise typer.BadParameter(f"{given} should end in {suffix}.", param_hint=option)
    else:
        chosen = {sources[0]: given}
    taken: dict[Path, Path] = {}
    for source, place in chosen.items():
        other = taken.setdefault(located(place), source)
        if other != source:
            raise typer.BadParameter(
                f"{other} and {source} would both be written to {place}: replay them one by one.", param_hint=option
            )
    for source in sources if len(sources) > 1 else ():
        if located(source) in taken:
            raise typer.BadParameter(f"{taken[located(source)]} would be written over {source}.", param_hint=option)
    return chosen


def located(path: Path) -> Path:
    """Where a file is, however its folder was named."""
    return path.parent.resolve() / path.name
