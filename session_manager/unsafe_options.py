"""The way out for an administrator who knows: options that take the sandbox away, let through and named aloud.

A GPU needs none of it: ``device_requests`` is an option like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from .settings_refused import ALLOW, UNSAFE
from .settings_section import text

logger = logging.getLogger(__name__)


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _root(value: object) -> object:
    if value not in (0, "0", "0:0", "root") or isinstance(value, bool):
        raise ValueError(
            "should be \"0\", which is root: to any other user than the image's the session's files are shut"
        )
    return "0:0"


Path = Annotated[str, text(r"/[^\0\n]{0,1000}", "an absolute path")]
Word = Annotated[str, BeforeValidator(_number_as_text), text(r"[A-Za-z0-9][\w.:/-]{0,200}", "a name or a number")]
Words = Annotated[list[Word], Field(max_length=100)]
Paths = Annotated[list[Path], Field(max_length=100)]
_OTHER = r"container:[A-Za-z0-9][\w.-]{0,200}"


class UnsafeOptions(TypedDict, total=False):
    """docker-py's names, and what they take here."""

    binds: Paths
    """What ``volumes`` is, without a look at what is bound."""
    cap_add: Words
    cgroup_parent: Annotated[str, text(r"[\w.:/-]{1,200}", "the name of a cgroup")]
    device_cgroup_rules: Annotated[
        list[Annotated[str, text(r"[abc] (\d+|\*):(\d+|\*) [rwm]{1,3}", 'a rule such as "c 188:* rwm"')]],
        Field(max_length=100),
    ]
    devices: Paths
    group_add: Words
    ipc_mode: Annotated[str, text(f"host|shareable|{_OTHER}", 'host, shareable or "container:NAME"')]
    pid_mode: Annotated[str, text(f"host|{_OTHER}", 'host or "container:NAME"')]
    privileged: Annotated[bool, Field(strict=True)]
    security_opt: Annotated[list[Annotated[str, text(r"[^\0\n]{1,1000}", "a line of text")]], Field(max_length=100)]
    sysctls: dict[
        Annotated[str, text(r"[a-z][\w./-]{0,200}", "the name of a kernel parameter")],
        Annotated[str, BeforeValidator(_number_as_text), text(r"[^\0\n]{0,200}", "a line of text")],
    ]
    user: Annotated[str, BeforeValidator(_root)]
    userns_mode: Literal["host"]
    uts_mode: Literal["host"]
    volumes_from: Words


_OVER_FILES: Final = frozenset(("ALL", "CAP_DAC_OVERRIDE", "DAC_OVERRIDE"))


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


def check_unsafe(unsafe: Mapping[str, Any]) -> None:
    """Raises ValueError where a session could not run with these."""
    mighty = unsafe.get("privileged") or not _OVER_FILES.isdisjoint(map(str.upper, unsafe.get("cap_add", ())))
    if "user" in unsafe and not mighty:
        raise ValueError(
            "user: root without capabilities can't open the session's files, which are the image's user's: "
            "`cap_add: [DAC_OVERRIDE]` beside it lets it"
        )


def warn_of_unsafe(unsafe: Mapping[str, Any]) -> None:
    """Say loudly what is let through."""
    if unsafe:
        logger.warning(
            "%s: %s. CODE IN SESSIONS MAY LEAVE ITS CONTAINER and do on the engine's host what these allow.",
            ALLOW,
            ", ".join(f"{name}={value!r:.60}" for name, value in sorted(unsafe.items())),
        )
