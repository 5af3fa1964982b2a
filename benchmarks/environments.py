"""Who is compared, and the environment of each: made from the package index under ``build/bench``, once."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"
KERNEL = ("ipykernel==7.4.0", "jupyter_client==8.10.0")
PLOTTING = ("numpy==2.4.6", "pandas==3.1.1", "matplotlib==3.11.2")
"""As in Dockerfile.python.example, for what runs in no container."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender, and how it is run."""

    name: str
    title: str
    module: str
    environment: str
    """Its folder's name; contenders may share one."""
    requirements: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    image: Literal["none", "example", "gateway", "ipybox", "llm-sandbox"] = "example"
    """All have the same packages: see :mod:`benchmarks.images`."""
    most_cells: int = 100_000
    """Of one round; fewer for what takes seconds for each."""


OURS = ("-e", f"{ROOT}[cli]")
ENTRANTS = (
    Entrant("bare", "bare local ipykernel", "bare_kernel", "bare", (*KERNEL, *PLOTTING), image="none"),
    Entrant("raw", "raw limit: ipc sockets, bind-mounted", "raw_limit", "raw", ("docker>=7.1", KERNEL[1])),
    Entrant("ours-cold", "ours, cold", "ours", "ours", OURS),
    Entrant("ours-pooled", "ours, pooled", "ours", "ours", OURS, ("pooled",)),
    Entrant("docker-run", "a container per call", "docker_run", "docker-run", ("docker>=7.1",), most_cells=5),
    Entrant(
        *("smolagents", "smolagents 1.26 DockerExecutor", "smolagents_docker", "smolagents"),
        ("smolagents[docker]==1.26.0",),
        image="gateway",
    ),
    Entrant(
        *("autogen", "autogen-ext 0.7.5 DockerJupyter", "autogen_jupyter", "autogen"),
        ("autogen-ext[docker-jupyter-executor]==0.7.5",),
        image="gateway",
    ),
    Entrant("ipybox", "ipybox 0.6.7", "ipybox_client", "ipybox", ("ipybox==0.6.7",), image="ipybox"),
    Entrant(
        *("llm-sandbox", "llm-sandbox 0.3.46, interactive", "llm_sandbox_session", "llm-sandbox"),
        ("llm-sandbox[docker]==0.3.46",),
        image="llm-sandbox",
        most_cells=5,
    ),
)
BASELINE = "bare"


async def ensure_environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment with these packages; made where it is missing, or they have changed.

    :raises RuntimeError: it can't be made; with the end of what venv or pip says.
    """
    folder = BUILD / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()
    if not ready.is_file() or ready.read_text() != wanted:
        await succeed(sys.executable, "-m", "venv", "--clear", str(folder))
        await succeed(str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements)
        ready.write_text(wanted)
    return python


async def succeed(*command: str) -> str:
    """What a command prints.

    :raises RuntimeError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed = (await process.communicate())[0].decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:4])} failed: {printed.strip()[-500:]}")
    return printed
