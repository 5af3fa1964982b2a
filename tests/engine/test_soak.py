"""Five hundred short sessions, after which all is as it was."""

from __future__ import annotations

import pytest

from benchmarks.soak import soak
from tests.conftest import MakeManager

SESSIONS = 500
MOST_GROWTH = 8 << 20
"""Bytes: a few megabytes is what an allocator's mood makes; a session that stays would be tens of kilobytes each."""


@pytest.mark.timeout(1500)
async def test_five_hundred_sessions_leave_nothing(make_manager: MakeManager) -> None:
    manager = await make_manager(container={"mem_limit": "256m"})
    curve = await soak(manager, SESSIONS, every=100)
    first, last = curve[0], curve[-1]
    assert (last.containers, last.volumes) == (0, 0)
    assert last.threads <= first.threads
    assert last.descriptors <= first.descriptors
    assert last.memory - first.memory < MOST_GROWTH, [sample.memory for sample in curve]
