"""What a caller is told of the session that had this key before: one sentence, made of what a container says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from .protocol import as_count

MOST_NAMES = 20
MOST_REASONS = 5


def of_the_session_before(before: Mapping[str, object], *, found: bool) -> str | None:
    """The supervisor's answer to ``before`` as a sentence or two; None where there is nothing to tell.

    ``found``: this program made the container, on a workspace that was there already. The answer comes out of a
    container, and what it tells lay where code that nobody trusts can write: it is cut to size, and not believed.
    """
    ended, restored = before.get("ended"), before.get("restore")
    ended = ended if isinstance(ended, dict) else None
    restored = restored if isinstance(restored, dict) else None
    if ended is None and restored is None and not found:
        return None
    is_copy = restored is not None and restored.get("reason") == "fork" and ended is None
    sentences = ["This session is a copy of another." if is_copy else ended_sentence(ended)]
    if restored is None:
        sentences.append("Its variables are gone; its files are kept.")
    elif "error" in restored:
        sentences.append(f"Its saved variables could not be restored ({clean(restored['error'])}); its files are kept.")
    else:
        sentences += restored_sentences(restored)
    return " ".join(sentences)


def ended_sentence(ended: Mapping[str, object] | None) -> str:
    """How and when the session before ended."""
    if ended is None:
        return "An earlier session of this key has ended."
    reasons = {
        "idle": "was put away because no cell had run for a while",
        "age": "was put away because it had lived for long",
        "full": "was put away to make room for another session",
        "network": "was put away because its way to the network was gone",
        "stopped": "was stopped",
    }
    given = ended.get("reason")
    reason = reasons.get(given, "ended") if isinstance(given, str) else "ended"
    return f"The session {reason}{at(ended.get('at'))}."


def restored_sentences(restored: Mapping[str, object]) -> list[str]:
    """Which variables came back, and which did not."""
    names, failed = restored.get("restored"), restored.get("failed")
    names = [clean(name) for name in names] if isinstance(names, list) else []
    failed = [one for one in failed if isinstance(one, dict)] if isinstance(failed, list) else []
    sentences = []
    if names:
        sentences.append(f"Variables are back as they were saved{at(restored.get('at'))}: {listed(names, restored)}.")
    else:
        sentences.append("No variables came back.")
    if failed:
        shown = [f"{clean(one.get('name'))} ({clean(one.get('reason'))})" for one in failed[:MOST_REASONS]]
        more = f" and {len(failed) - MOST_REASONS} more" if len(failed) > MOST_REASONS else ""
        sentences.append(f"Not restored: {', '.join(shown)}{more}.")
    sentences.append("Files are kept.")
    return sentences


def listed(names: list[str], report: Mapping[str, object]) -> str:
    """Names, up to a number of them."""
    total = max(as_count(report.get("restored_count")) or 0, len(names))
    more = f" and {total - MOST_NAMES} more" if total > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def at(seconds: object) -> str:
    """`` at 2026-11-25 12:03 UTC``, or nothing where that is no time."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < 1e11:
        return ""
    try:
        return f" at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def clean(text: object) -> str:
    """A short text on one line, of printable characters; ``?`` where it is no text."""
    shown = "".join(
        letter if letter.isprintable() else " " for letter in (text if isinstance(text, str) else "?")[:120]
    )
    return " ".join(shown.split())
