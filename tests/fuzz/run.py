"""Fuzz one target with Atheris: ``python -m tests.fuzz.run TARGET SECONDS``. What ends it is kept in its corpus."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["session_manager"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main(name: str, seconds: str) -> None:
    """Run it; the exit code is not 0 where something was found."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as fresh:
        atheris.Setup(
            [
                *(sys.argv[0], fresh, str(kept), f"-max_total_time={int(seconds)}", "-timeout=10"),
                *("-rss_limit_mb=1024", "-max_len=2000", f"-artifact_prefix={kept}/", "-print_final_stats=1"),
            ],
            TARGETS[name],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
