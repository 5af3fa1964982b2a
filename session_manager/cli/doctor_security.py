"""The command ``doctor --security``: is each promise about a session's container kept, here, by this engine?"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict

from rich.text import Text

from ..engine import docker_engine
from ..engine.audit import ASK, Promise, audit
from ..errors import SandboxError
from ..manager import SessionManager
from ..outputs import Stream, strip_escapes
from ..settings import Settings
from .cells import open_manager, without_pool
from .exits import FAILED
from .tables import plain, print_table

SECONDS = 30.0


async def look(manager: SessionManager, settings: Settings) -> Sequence[Promise]:
    """Start a session, look at it from both sides, and remove it.

    :raises SandboxError: it can't be started or looked at; or the engine is one that promises nothing.
    """
    if settings.engine != "docker":
        raise SandboxError("The process engine promises nothing: code runs as you do.", "Use --engine docker.")
    engine = docker_engine(settings)
    session = await manager.session(f"doctor-{uuid.uuid4()}")
    try:
        run = await session.execute(ASK, timeout=SECONDS)
        said = "".join(output.text for output in run.outputs if isinstance(output, Stream))
        if run.status != "ok":
            raise SandboxError(f"What a session sees of itself can't be learnt: {run.text.strip()[-300:]}")
        name = session.container_name
        container = await engine.call(lambda api: api.inspect_container(name))
        image = await engine.call(lambda api: api.inspect_image(container["Image"]))
        return list(audit(container, json.loads(said), settings.container, image["Config"]["Env"] or ()))
    finally:
        await session.stop(purge=True)
        await engine.close()


async def examine_security(settings: Settings, *, as_json: bool) -> int:
    """Show each promise as found; the command's exit code, 1 where one is broken.

    :raises SandboxError: as :func:`look`.
    """
    async with open_manager(without_pool(settings)) as (manager, _):
        promises = await look(manager, settings)
    broken = [promise for promise in promises if not promise.kept]
    if as_json:
        print(json.dumps({"ok": not broken, "promises": [asdict(promise) for promise in promises]}))
    else:
        table = plain("", "what", "promised", "found")
        for promise in promises:
            word = Text("kept", "green") if promise.kept else Text("BROKEN", "bold red")
            table.add_row(word, promise.name, promise.promised, strip_escapes(promise.found))
        print_table(table)
    return FAILED if broken else 0
