"""What the files inside a container import: the standard library, and in the kernel what its image pins."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

INSIDE = Path(__file__).parents[2] / "kernel_image"
MODULES = {path.stem: path for path in INSIDE.glob("*.py")}
APART = ("supervisor", "relay", "file_door")
"""Whose processes are not the kernel's: what the kernel's environment holds must not reach them."""


def imported(path: Path) -> set[str]:
    """The names that a file imports, those of this folder without it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "kernel_image":
            found |= {f"kernel_image.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module))
    return {name.removeprefix("kernel_image.").partition(".")[0] for name in found}


def reached(name: str) -> set[str]:
    """All that a file imports, by others of this folder too."""
    waiting, seen, names = [name], set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            names |= imported(MODULES[module])
            waiting += names & MODULES.keys()
    return names - MODULES.keys()


@pytest.mark.parametrize("name", APART)
def test_what_runs_beside_the_kernel_uses_the_standard_library_alone(name: str) -> None:
    assert reached(name) - sys.stdlib_module_names == set()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_runs_in_the_kernel_uses_what_its_image_pins(name: str) -> None:
    lines = (INSIDE / "requirements.txt").read_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0].lower()) for line in lines if "==" in line}
    providers = packages_distributions()
    for module in reached(name) - sys.stdlib_module_names:
        packages = {re.sub(r"[-_.]+", "-", one.lower()) for one in providers[module]}
        assert packages & pinned, f"{name} imports {module}, which requirements.txt does not pin"


def test_each_pin_is_exact() -> None:
    lines = [line.strip() for line in (INSIDE / "requirements.txt").read_text().splitlines()]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line and not line.startswith("#"))
