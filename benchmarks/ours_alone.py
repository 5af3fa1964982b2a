"""stub"""
from __future__ import annotations
from collections.abc import Callable
from benchmarks.figures import Alone


async def measure_alone(found: list[Alone], *, quick: bool, say: Callable[[str], None]) -> None:
    pass
