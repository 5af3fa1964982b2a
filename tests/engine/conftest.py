"""Fixtures for tests that ask the Docker engine itself, behind the library's back."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from session_manager.engine.docker_host import connect

from .outside import world

__all__ = ["world"]


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    """A client of the engine that the sessions run on."""
    found = connect()
    yield found
    found.close()
