"""Every test in this folder runs on every engine."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["docker", "process"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine by name."""
    return str(request.param)
