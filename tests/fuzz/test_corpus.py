"""What fuzzing has found once is tried again, and some that is made up; ``make fuzz`` looks for more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_there_is_something_of_each() -> None:
    assert {path.parent.name for path in FOUND} == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, deadline=5000)
@given(data=st.binary(max_size=600))
def test_anything(name: str, data: bytes) -> None:
    TARGETS[name](data)
