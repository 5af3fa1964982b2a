"""Which packages an image has, for a model that chooses what to import: asked of a session once for each image."""

from __future__ import annotations

import logging

from ..errors import SandboxError
from ..manager import SessionManager
from ..outputs import Stream
from ..session import Session

logger = logging.getLogger(__name__)

MOST = 60
LONGEST_NAME = 60
TIMEOUT = 20.0
ASK = """
from importlib.metadata import packages_distributions
plumbing = {"pip", "setuptools", "wheel", "ipykernel", "jupyter_client", "jupyter_core", "pyzmq", "zmq", "tornado"}
found = {name for name in packages_distributions() if not name.startswith("_")} - plumbing
first = [name for name in %r if name in found]
print(*first, *sorted(found - set(first)))
"""
WELL_KNOWN = (
    *("numpy", "pandas", "matplotlib", "scipy", "sklearn", "seaborn", "statsmodels", "plotly", "polars", "duckdb"),
    *("pyarrow", "PIL", "openpyxl", "requests", "bs4", "lxml", "sympy", "networkx"),
)
"""They are named first, where the image has them."""
_known: dict[str, tuple[str, ...]] = {}


async def learn_packages(manager: SessionManager, image: str) -> None:
    """Ask a throw-away session once which names can be imported. ``image``: what they are remembered for."""
    if image in _known:
        return
    _known[image] = ()  # one who asks is enough
    session: Session | None = None
    try:
        session = await manager.throw_away()
        run = await session.execute(ASK % (WELL_KNOWN,), timeout=TIMEOUT)
        text = "".join(output.text for output in run.outputs if isinstance(output, Stream))
        names = [name for name in text[: MOST * LONGEST_NAME * 10].split() if name.isidentifier()]
        _known[image] = tuple(name for name in names if len(name) <= LONGEST_NAME)[:MOST]
    except SandboxError as error:
        del _known[image]
        logger.info("which packages %s has can't be learnt: %s", image, error)
    finally:
        if session is not None:
            await session.stop(purge=True)


def known_packages(image: str) -> tuple[str, ...]:
    """Names to import, the best known first; empty as long as nobody has learnt them."""
    return _known.get(image, ())
