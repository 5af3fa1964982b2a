"""The two images, built by a real engine, and looked at from inside under the limits that sessions have."""

from __future__ import annotations

import ast
import base64
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from session_manager.engine.docker_host import connect, find_docker_host
from session_manager.errors import ImageBuildFailed
from session_manager.images import SESSION_IMAGES, ImageKind, base, build, context, ensure_image, find_image

# on a machine that has neither image, the first test waits for both
pytestmark = pytest.mark.timeout(1800)

IMPORTS = {
    "scikit-learn": "sklearn",
    "python-docx": "docx",
    "pillow": "PIL",
    "beautifulsoup4": "bs4",
    "PyYAML": "yaml",
    "Jinja2": "jinja2",
    "python-dateutil": "dateutil",
    "ipython": "IPython",
    "pyzmq": "zmq",
    "Pygments": "pygments",
    "attrs": "attr",
    "polars-runtime-32": "_polars_runtime_32",
    "MarkupSafe": "markupsafe",
    "rpds-py": "rpds",
    "fonttools": "fontTools",
}

Run = Callable[..., bytes]


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    host = find_docker_host()
    client = docker.DockerClient(base_url=host.url, tls=host.tls or False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def api() -> Iterator[docker.APIClient]:
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def images(api: docker.APIClient) -> dict[ImageKind, str]:
    """Both images, current."""
    return {kind: ensure_image(api, kind, progress=print) for kind in SESSION_IMAGES}


@pytest.fixture
def run(engine: docker.DockerClient) -> Run:
    """Run Python code in an image, with a session's restrictions; returns its standard output."""

    def run_code(image: str, code: str, **options: Any) -> bytes:
        settings: dict[str, Any] = {
            "read_only": True,
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "tmpfs": {"/tmp": "", "/home/python": ""},
            "mem_limit": "1g",
        }
        output: bytes = engine.containers.run(
            image, entrypoint=["/opt/venv/bin/python", "-c", code], remove=True, **{**settings, **options}
        )
        return output

    return run_code


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_a_built_image_is_found_and_not_built_again(
    api: docker.APIClient, images: dict[ImageKind, str], kind: ImageKind
) -> None:
    lines: list[str] = []
    assert find_image(api, kind) == images[kind]
    assert ensure_image(api, kind, progress=lines.append) == images[kind]
    assert lines == []


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_code_runs_as_nobody_in_particular_in_the_workspace(
    run: Run, images: dict[ImageKind, str], kind: ImageKind
) -> None:
    code = "import os; print([os.getuid(), os.getgid(), os.getgroups(), os.getcwd(), os.environ['HOME']])"
    assert ast.literal_eval(run(images[kind], code).decode()) == [1000, 1000, [1000], "/mnt", "/home/python"]


def test_a_new_volume_belongs_to_the_user(engine: docker.DockerClient, run: Run, images: dict[ImageKind, str]) -> None:
    volume = engine.volumes.create(f"docker-interpreter-test-{uuid.uuid4().hex}")
    try:
        mounts = {volume.name: {"bind": "/mnt", "mode": "rw"}}
        run(images[ImageKind.DEFAULT], "open('kept', 'w').write('still here')", volumes=mounts)
        assert run(images[ImageKind.DEFAULT], "print(open('kept').read())", volumes=mounts) == b"still here\n"
    finally:
        volume.remove()


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_nothing_of_the_build_stays(
    api: docker.APIClient, run: Run, images: dict[ImageKind, str], kind: ImageKind
) -> None:
    configuration = api.inspect_image(images[kind])["Config"]
    assert not [one for one in configuration["Env"] if re.match(r"(PIP|SSL|CURL|REQUESTS)_|HTTPS?_PROXY", one)]
    assert configuration["User"] == "1000:1000"
    assert configuration["Entrypoint"] == ["/opt/venv/bin/python", "-Es", "/opt/kernel_image/supervisor.py"]
    assert not api.images(filters={"dangling": True, "label": build.STAGE_LABEL})
    commands = " ".join(layer["CreatedBy"] for layer in api.history(images[kind]))
    assert "ca-bundle" not in commands
    assert "PIP_CERT" not in commands
    code = """
import os
places = ["/build", "/root/.cache", "/root/.config", "/etc/pip.conf", "/etc/apt/apt.conf.d/80ca-bundle"]
print([p for p in places if os.path.exists(p)])
print([os.path.join(d, f) for d, _, files in os.walk("/") if not d.startswith("/proc") for f in files
       if f == "ca-bundle.crt"])
"""
    assert run(images[kind], code, user="0:0", cap_drop=[]) == b"[]\n[]\n"


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_no_file_gives_its_user_other_rights(run: Run, images: dict[ImageKind, str], kind: ImageKind) -> None:
    code = """
import os, stat
seen, found = 0, []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [f for f in folders if f not in ("proc", "sys", "dev")]
    for name in (*files, *folders):
        seen += 1
        if os.lstat(os.path.join(folder, name)).st_mode & (stat.S_ISUID | stat.S_ISGID):
            found.append(os.path.join(folder, name))
print(found, seen > 3000)
"""
    assert run(images[kind], code, user="0:0", cap_drop=[]) == b"[] True\n"


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_everything_is_compiled(run: Run, images: dict[ImageKind, str], kind: ImageKind) -> None:
    code = """
import importlib.util, os, sysconfig
left_out = ("test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "__pycache__")
missing, seen = [], 0
for root in ("/opt/venv/lib", "/opt/kernel_image", sysconfig.get_path("stdlib")):
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in left_out]
        for name in files:
            if name.endswith(".py"):
                seen += 1
                path = os.path.join(folder, name)
                if not os.path.exists(importlib.util.cache_from_source(path)):
                    missing.append(path)
print(missing, seen > 1500)
"""
    assert run(images[kind], code) == b"[] True\n"


@pytest.mark.parametrize("kind", SESSION_IMAGES)
def test_what_is_installed_is_what_is_pinned(run: Run, images: dict[ImageKind, str], kind: ImageKind) -> None:
    files = {**context.image_files(ImageKind.DEFAULT), **context.image_files(kind)}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", files.get("requirements.txt", b"").decode(), re.MULTILINE))
    if kind is ImageKind.EXAMPLE:
        pins |= dict(re.findall(r"(?<= )([\w.-]+)==([^\s;]+)", files["Dockerfile"].decode()))
        assert len(pins) > 75
    code = f"""
from importlib.metadata import version
print([(name, pinned, version(name)) for name, pinned in {pins!r}.items() if version(name) != pinned])
"""
    assert run(images[kind], code) == b"[]\n"


def test_a_kernel_can_be_imported_and_no_debugger_comes_with_it(run: Run, images: dict[ImageKind, str]) -> None:
    code = "import sys, ipykernel.kernelapp, ipykernel.debugger; print('debugpy' in sys.modules)"
    assert run(images[ImageKind.DEFAULT], code) == b"False\n"


def test_every_package_of_the_example_can_be_imported(run: Run, images: dict[ImageKind, str]) -> None:
    dockerfile = context.image_files(ImageKind.EXAMPLE)["Dockerfile"].decode()
    names = [name for name, _ in re.findall(r"(?<= )([\w.-]+)==([^\s;]+)", dockerfile)]
    assert {"numpy", "pandas", "scipy", "statsmodels", "pyarrow", "duckdb", "tabulate"} <= set(names)
    modules = [IMPORTS.get(name, name.replace("-", "_")) for name in names]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('all')"
    assert run(images[ImageKind.EXAMPLE], code) == b"all\n"


def test_a_plot_has_its_fonts_and_needs_no_time_to_list_them(run: Run, images: dict[ImageKind, str]) -> None:
    code = """
import base64, io, os, warnings
warnings.simplefilter("error")
import matplotlib
matplotlib.use("agg")
import matplotlib.font_manager as fonts
import matplotlib.pyplot as plt
listed = os.path.join(matplotlib.get_cachedir(), f"fontlist-v{fonts.FontManager.__version__}.json")
assert os.path.realpath(listed) == f"/opt/venv/share/matplotlib/{os.path.basename(listed)}", listed
assert {"DejaVu Sans", "Liberation Sans", "WenQuanYi Micro Hei"} <= set(fonts.get_font_names())
figure, axes = plt.subplots()
axes.plot([1, 4, 9])
axes.set_title("Größe, δ, 销售额, 売上, 매출")
picture = io.BytesIO()
figure.savefig(picture, format="png")
print(base64.b64encode(picture.getvalue()).decode())
"""
    picture = base64.b64decode(run(images[ImageKind.EXAMPLE], code, stderr=False))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 5000


def test_data_goes_through_every_library(run: Run, images: dict[ImageKind, str]) -> None:
    code = """
import io
import duckdb, numpy as np, pandas as pd, polars as pl, seaborn as sns, statsmodels.formula.api as smf
import matplotlib; matplotlib.use("agg")
from sklearn.linear_model import LinearRegression
frame = pd.DataFrame({"x": np.arange(50.0), "g": list("ab") * 25})
frame["y"] = 3 * frame.x + 2
book = io.BytesIO()
frame.to_excel(book, index=False)
frame = pd.read_excel(book)
frame.to_parquet("/tmp/frame.parquet")
print(round(LinearRegression().fit(frame[["x"]], frame.y).coef_[0], 6))
print(round(smf.ols("y ~ x", frame).fit().params["Intercept"], 6))
print(duckdb.sql("select count(*) from '/tmp/frame.parquet'").fetchall()[0][0])
print(pl.read_parquet("/tmp/frame.parquet").group_by("g").len().height)
print(len(pd.read_html(io.StringIO(frame.to_html()))[0]), frame.head(1).to_markdown(index=False).count("|"))
print(pd.Timestamp("2026-07-01", tz="Europe/Berlin").utcoffset())
print(sns.scatterplot(frame, x="x", y="y", hue="g").get_xlabel(), "Styler" in repr(frame.style))
"""
    assert run(images[ImageKind.EXAMPLE], code, stderr=False).decode().splitlines() == [
        "3.0",
        "2.0",
        "50",
        "2",
        "50 12",
        "2:00:00",
        "x True",
    ]


def test_a_plotly_figure_is_shown_as_one(run: Run, images: dict[ImageKind, str]) -> None:
    code = """
import plotly.express as px, plotly.io as pio
pio.renderers.default = "plotly_mimetype"
print(sorted(px.line(x=[1, 2], y=[3, 4])._repr_mimebundle_(None, None)))
"""
    assert b"application/vnd.plotly.v1+json" in run(images[ImageKind.EXAMPLE], code)


def test_a_build_that_fails_says_why_and_leaves_no_image(
    api: docker.APIClient, images: dict[ImageKind, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_on = api.inspect_image(images[ImageKind.DEFAULT])["Config"]["Labels"][build.BASE_LABEL]
    dockerfile = f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN echo {uuid.uuid4()} the reason; exit 7\n"
    for module in (build, context):
        monkeypatch.setattr(module, "image_files", lambda _: {"Dockerfile": dockerfile.encode()})
    lines: list[str] = []
    with pytest.raises(ImageBuildFailed, match="a step ended with exit code 7") as caught:
        ensure_image(api, ImageKind.DEFAULT, base=made_on, progress=lines.append)
    assert "the reason" in caught.value.message.splitlines()[-1]
    assert any(line.startswith("Step 3/") for line in lines)
    assert find_image(api, ImageKind.DEFAULT, made_on) is None


def test_a_base_that_can_not_be_had_is_said_to_be_missing(api: docker.APIClient) -> None:
    with pytest.raises(
        ImageBuildFailed, match=r"localhost:1/nothing:here is not on the engine and can't be pulled"
    ) as caught:
        ensure_image(api, ImageKind.DEFAULT, base="localhost:1/nothing:here", progress=print)
    assert caught.value.remedy is not None
    assert "--base" in caught.value.remedy


def test_a_registry_that_says_nothing_is_given_up(api: docker.APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "REGISTRY_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, and nobody reads them
        reference = f"localhost:{silent.getsockname()[1]}/nothing:here"
        with pytest.raises(ImageBuildFailed, match="no answer from the registry in 1 s"):
            ensure_image(api, ImageKind.DEFAULT, base=reference, progress=print)
