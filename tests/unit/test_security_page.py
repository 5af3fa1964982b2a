"""Each promise and each case in SECURITY.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "SECURITY.md").read_text().splitlines()
RULE = re.compile(r"(\| --- )+\|")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line, following in pairwise([*LINES, ""])
    if line.startswith("|") and not RULE.fullmatch(line) and not RULE.fullmatch(following)
]


def test_each_promise_names_its_tests() -> None:
    assert len(ROWS) > 30
    for promise, _, shown in ROWS:
        assert re.fullmatch(r"(`[\w/.]+::\w+`(, )?)+", shown), promise


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in re.findall(r"`([\w/.]+::\w+)`", row[2])}))
def test_each_of_them_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
