"""The command ``docker-interpreter``.

``app`` and ``groups`` hold the commands as they are typed, and load what does the work when it is wanted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ends with :class:`SystemExit`."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print("error: The command line needs packages that are missing.", file=sys.stderr)
        print("Install them: pip install 'docker-interpreter[cli]'", file=sys.stderr)
        sys.exit(1)
    app(prog_name="docker-interpreter")
