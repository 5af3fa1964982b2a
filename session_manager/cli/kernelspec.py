"""The command ``kernelspec``: lets any Jupyter client run its kernels in sessions."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from ..errors import SandboxError
from ..registry import SessionName

PROVISIONER = "docker-interpreter"


def kernelspec(key: str, image: str) -> dict[str, object]:
    """The kernelspec. Empty strings: a session of each kernel's own, and the image of the settings."""
    return {
        # Jupyter wants a command; the provisioner starts a session instead
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python (docker-interpreter)" + (f": {key}" if key else ""),
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {
            "kernel_provisioner": {
                "provisioner_name": PROVISIONER,
                "config": {"session_key": key, "image": image},
            },
        },
    }


def install(name: str, key: str, image: str, *, prefix: str | None, sys_prefix: bool) -> int:
    """Write the kernelspec where Jupyter looks for it: the user's folder, or below a prefix.

    :raises SandboxError: the name or the key can't be used.
    :raises OSError: it can't be written there.
    """
    if key:
        SessionName(PROVISIONER, key)  # says what is wrong with a key
    where = prefix or (sys.prefix if sys_prefix else None)
    with tempfile.TemporaryDirectory(prefix="docker-interpreter-") as folder:
        content = json.dumps(kernelspec(key, image), indent=1)
        Path(folder, "kernel.json").write_text(content + "\n", encoding="utf-8")
        try:
            path = KernelSpecManager().install_kernel_spec(folder, name, user=where is None, prefix=where)
        except ValueError as error:
            raise SandboxError(f"{error}") from None
    print(f"Installed the kernel {name} in {path}")
    return 0


def remove(name: str) -> int:
    """Remove a kernelspec that :func:`install` wrote.

    :raises SandboxError: there is none of that name, or it is somebody else's.
    """
    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        raise SandboxError(
            f"Jupyter knows no kernel {name!r}.", "`jupyter kernelspec list` lists those that it does."
        ) from None
    provisioner = spec.metadata.get("kernel_provisioner")
    if not isinstance(provisioner, dict) or provisioner.get("provisioner_name") != PROVISIONER:
        raise SandboxError(
            f"The kernel {name!r} is none of docker-interpreter's.", "`jupyter kernelspec remove` removes it."
        )
    print(f"Removed {manager.remove_kernel_spec(name)}")
    return 0
