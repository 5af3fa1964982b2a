"""What a model reads of a call, and what a page shows of it."""

from __future__ import annotations

from ..execution import Execution

FAILED = ("killed", "out_of_memory", "died", "container_removed", "engine_unreachable")
NOTHING = "The code ran and put nothing out."


def text_for_chat(execution: Execution) -> str:
    """The outcome for a model: what the code put out, how it ended where that needs saying, files, and the time.

    It begins with a word on the outcome: pages take a text that begins with ``Error`` or ``Traceback`` for a failed
    call of the tool, which code that raised is not.
    """
    words = {"ok": "Done", "error": "The code raised", "interrupted": "Interrupted"}
    head = words.get(execution.status, "Python is gone" if execution.status in FAILED else execution.status)
    if execution.status == "error" and execution.error is not None:
        head = f"{head} {execution.error.name}"
    return f"[{head} after {execution.duration:.1f} s]\n{execution.text or NOTHING}"
