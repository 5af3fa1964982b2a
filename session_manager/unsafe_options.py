"""The way out for an administrator who knows: options that take the sandbox away, let through and named aloud.

A GPU needs none of it: ``device_requests`` is an option like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

logger = logging.getLogger(__name__)

ALLOW: Final = "allow_unsafe_options"
UNSAFE: Final = frozenset(
    ("binds", "cap_add", "cgroup_parent", "device_cgroup_rules", "devices", "group_add", "ipc_mode", "pid_mode")
    + ("privileged", "security_opt", "sysctls", "user", "userns_mode", "uts_mode", "volumes_from")
)
"""docker-py's names. ``binds`` is what ``volumes`` is, without a look at what is bound."""


def take_unsafe(values: object) -> object:
    """Where options allow it, those that are unsafe are put together in ``unsafe``, away from the others.

    Raises ValueError where ``unsafe`` holds something without being allowed, or something that is not unsafe.
    """
    if not isinstance(values, Mapping):
        return values
    unsafe = values.get("unsafe") or {}
    if not isinstance(unsafe, Mapping) or (unsafe and values.get(ALLOW) is not True) or set(unsafe) - UNSAFE:
        raise ValueError(f"unsafe: should be left alone; with `{ALLOW}: true` unsafe options stand beside the others")
    if values.get(ALLOW) is not True:
        return values
    found = {name: value for name, value in values.items() if name in UNSAFE}
    rest = {name: value for name, value in values.items() if name not in UNSAFE}
    return {**rest, "unsafe": {**unsafe, **found}}


def warn_of_unsafe(unsafe: Mapping[str, Any]) -> None:
    """Say loudly what is let through."""
    if unsafe:
        logger.warning(
            "%s: %s. CODE IN SESSIONS MAY LEAVE ITS CONTAINER and do on the engine's host what these allow.",
            ALLOW,
            ", ".join(f"{name}={value!r:.60}" for name, value in sorted(unsafe.items())),
        )
