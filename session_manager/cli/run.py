"""The command ``run``: one cell, in a throw-away session or a named one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from ..errors import SandboxError
from ..execution import Execution, Status
from ..outputs import Display, Error, Result, strip_escapes, to_nbformat
from ..session import Session
from ..settings import Settings
from .cells import open_manager, run_cell
from .exits import CTRL_C, SANDBOX_FAILED, complain
from .live import LiveOutput
from .pictures import PictureFiles, images_in
from .transfers import find_files, get_files, lines, local_files, put_files

EXIT_CODES: dict[Status, int] = {
    "ok": 0,
    "error": 1,
    "interrupted": 124,
    "killed": 137,
    "out_of_memory": 137,
    "died": 137,
    "container_removed": 137,
    "engine_unreachable": SANDBOX_FAILED,
}
NOT_IN_JSON = ("image/", "audio/", "video/", "application/pdf")
"""Beginnings of the mime types whose content is base64 or as long."""


def read_code(code: str | None, file: str | None) -> str:
    """The code to run: ``-c``'s, a file's, or what standard input has.

    :raises typer.BadParameter: there is not exactly one of them, or it can't be read.
    """
    if (code is None) == (file is None):
        raise typer.BadParameter("Give the code to run with -c CODE, as a FILE, or as - for standard input.")
    if code is not None:
        return code
    if file == "-":
        return sys.stdin.read()
    path = Path(file or "")
    if path.suffix == ".ipynb":
        raise typer.BadParameter(f"{path} is a notebook: `docker-interpreter replay` runs those.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is no UTF-8 text.") from None


async def run_code(
    settings: Settings,
    code: str,
    key: str | None,
    seconds: float | None,
    image_folder: Path,
    *,
    owner: str,
    as_json: bool,
    put: Sequence[Path] = (),
    get: tuple[str, Path] | None = None,
) -> int:
    """Run the code and show what it puts out; the command's exit code.

    ``put``: files of this machine that are put beside it first. ``get``: a pattern, and the folder that the files it
    means are taken to afterwards, also where the code failed.

    :raises SandboxError: as :meth:`SessionManager.session` and :meth:`Session.execute`; a file can't be put.
    """
    local = local_files(put)
    pictures = PictureFiles(image_folder)
    live = LiveOutput(sys.stdout, sys.stderr, pictures)
    async with open_manager(settings) as (manager, progress):
        session = await (manager.throw_away(owner=owner) if key is None else manager.session(key, owner=owner))
        progress.stop()
        if local:
            await put_files(session.files, local)
        execution, stopped = await run_cell(session, code, seconds, None if as_json else live, "docker-interpreter run")
        show_result(execution, key, live, pictures, as_json=as_json)
        ended = CTRL_C if stopped else EXIT_CODES[execution.status]
        return ended if get is None else await take_home(session, *get, live) or ended


async def take_home(session: Session, pattern: str, folder: Path, live: LiveOutput) -> int:
    """Get the files that a pattern means, and say so; 0, or the exit code where they can't be had."""
    try:
        arrived = await get_files(session.files, await find_files(session.files, [pattern]), folder, force=True)
    except SandboxError as error:
        complain(f"error: {error}")
        return SANDBOX_FAILED
    for line in lines(arrived, into=False):
        live.say(line)
    return 0


def show_result(
    execution: Execution, key: str | None, live: LiveOutput, pictures: PictureFiles, *, as_json: bool
) -> None:
    """What there is to say once a cell has ended, whose output was shown live; or all of it, as JSON."""
    if as_json:
        print(json.dumps(describe(execution, key, pictures)), flush=True)
    else:
        say_how_it_ended(execution, live)


def say_how_it_ended(execution: Execution, live: LiveOutput) -> None:
    """What the outputs themselves don't say, on standard error."""
    if execution.error is not None and not live.showed_error:
        live(execution.error)
    for sentence in (execution.notice, execution.message, execution.warning):
        if sentence:
            live.say(sentence)
    if execution.output_incomplete:
        live.say("Some output may be missing.")


def describe(execution: Execution, key: str | None, pictures: PictureFiles) -> dict[str, object]:
    """The execution as JSON, without images, sound and the like; images go into files, which are named."""
    outputs: list[dict[str, object]] = []
    for output in execution.outputs:
        described = to_nbformat(output)
        if isinstance(output, Display | Result):
            described["data"] = {mime: value for mime, value in output.data.items() if not mime.startswith(NOT_IN_JSON)}
            files = {mime: pictures.save(mime, content) for mime, content in images_in(output.data)}
            if files:
                described["files"] = {mime: str(path) for mime, path in files.items() if path}
        elif isinstance(output, Error):
            described["traceback"] = [strip_escapes(line) for line in output.traceback]
        outputs.append(described)
    error = execution.error
    return {
        "session": key,
        "status": execution.status,
        "text": execution.text,
        "error": {"name": error.name, "value": error.value} if error else None,
        "outputs": outputs,
        "duration": round(execution.duration, 6),
        "execution_count": execution.execution_count,
        "variables_kept": execution.variables_kept,
        "output_incomplete": execution.output_incomplete,
        "message": execution.message,
        "notice": execution.notice,
        "warning": execution.warning,
        "files": [
            {"path": file.path, "size": file.size, "mime": file.mime, "kind": file.kind} for file in execution.files
        ],
        "files_complete": execution.files_complete,
    }
