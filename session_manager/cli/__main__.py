"""``python -m session_manager.cli``."""

from . import main

main()
