"""What a container's supervisor is told as it starts; the words are those of ``kernel_image/supervisor.py``."""

from __future__ import annotations

from .settings import Settings


def supervision(settings: Settings, image: str, *, kept: bool, restore: bool = True) -> dict[str, object]:
    """The limits of a container's life, and what its kernel keeps. Who throws a session away needs no journal of it.

    ``restore``: whether saved variables are put back; False where containers have ended as they did that.
    """
    limits, saving = settings.limits, settings.saving
    save = {"timeout": saving.timeout, "max_bytes": saving.max_bytes}
    journal = {"max_bytes": limits.journal_bytes, "image": image}
    return {
        "idle_timeout": limits.idle_timeout + limits.idle_margin,
        "alone_timeout": None if kept else limits.orphan_grace,
        "longest_cell": limits.longest_cell,
        "replay_bytes": limits.replay_bytes,
        "journal": journal if limits.journal_bytes is not None and kept else None,
        "save": save if saving.enabled and kept else None,
        "restore": {"timeout": saving.timeout} if restore else {"given_up": True},
        "reap": {
            "idle_timeout": limits.idle_timeout,
            "longest_life": limits.longest_life,
            "save": saving.enabled,
        },
    }
