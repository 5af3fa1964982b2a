"""The images that contenders run on: all of them the example image, with what each needs put on top of it."""

from __future__ import annotations

import hashlib

import docker

from session_manager.debian import Progress
from session_manager.images import ImageKind, ensure_image
from session_manager.images.build import build_files

REPOSITORY = "docker-interpreter/bench"
INSTALL = (
    "COPY Dockerfile ca-bundle.cr[t] /build/\n"
    "RUN set -eu; if [ -s /build/ca-bundle.crt ]; then export PIP_CERT=/build/ca-bundle.crt; fi; "
    "pip install --no-cache-dir --disable-pip-version-check --progress-bar off --root-user-action ignore {packages}; "
    "rm -r /build\n"
)
HEAD = "ARG KERNEL_IMAGE\nFROM ${KERNEL_IMAGE}\nUSER 0\n"
GATEWAY = (
    "python -m jupyter kernelgateway --KernelGatewayApp.ip=0.0.0.0 --KernelGatewayApp.port=8888"
    # by itself it throws away what is printed faster than 1 MB/s
    " --ZMQChannelsWebsocketConnection.limit_rate=False"
)
LAYERS = {
    # smolagents hands the token over as KG_AUTH_TOKEN, autogen as TOKEN
    "gateway": HEAD
    + INSTALL.format(packages="jupyter_kernel_gateway")
    + "USER 1000\nEXPOSE 8888\nENTRYPOINT []\n"
    + f'CMD ["/bin/sh", "-c", "KG_AUTH_TOKEN=${{KG_AUTH_TOKEN:-$TOKEN}} exec {GATEWAY}"]\n',
    # its own image runs a second server, which only its tools need
    "ipybox": HEAD
    + INSTALL.format(packages="jupyter_kernel_gateway")
    + "RUN mkdir -p /app && chown 1000:1000 /app\nWORKDIR /app\nUSER 1000\nEXPOSE 8888 8900\nENTRYPOINT []\n"
    + f'CMD ["/bin/sh", "-c", "exec {GATEWAY}"]\n',
    # it runs what it finds in this environment, and would otherwise make it at every start
    "llm-sandbox": HEAD
    + 'RUN mkdir -p /sandbox && ln -s /opt/venv /sandbox/.sandbox-venv\nENTRYPOINT []\nCMD ["/bin/bash"]\n',
}


class Images:
    """Finds or builds them; blocks."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[str, str] = {}

    def reference(self, kind: str) -> str:
        """The image's reference.

        :raises SandboxError: it can't be built.
        """
        if kind == "none":  # for what needs no engine
            return ""
        if kind not in self._known:
            client = docker.from_env().api
            try:
                self._known[kind] = self._ensure(client, kind)
            finally:
                client.close()
        return self._known[kind]

    def _ensure(self, client: docker.APIClient, kind: str) -> str:
        base = ensure_image(client, ImageKind.EXAMPLE, progress=self._progress)
        if kind == "example":
            return base
        content = LAYERS[kind].encode()
        reference = f"{REPOSITORY}-{kind}:{hashlib.sha256(base.encode() + content).hexdigest()[:12]}"
        if not client.images(reference):
            files, given = {"Dockerfile": content}, {"KERNEL_IMAGE": base}
            build_files(client, kind, reference, files, given, labels={}, progress=self._progress, rebuild=False)
        return reference
