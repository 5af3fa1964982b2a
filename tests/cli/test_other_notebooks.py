"""Notebooks from other people's hands: replayed, they do what nbclient says that they do.

They come with the source distributions of nbclient, papermill and nbconvert, which are downloaded once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from session_manager.replay.compare import compare_outputs
from session_manager.replay.sameness import Tolerance

from .conftest import ROOT, SECONDS, CommandLine
from .test_replay_report import Page

CACHE = ROOT / "build" / "distributions"
DISTRIBUTIONS = {"nbclient": "0.10.2", "papermill": "2.6.0", "nbconvert": "7.16.6"}
DOWNLOAD_SECONDS = 150

CLIENT = "nbclient-0.10.2/tests/files/"
CONVERT = "nbconvert-7.16.6/tests/"
MILL = "papermill-2.6.0/papermill/tests/notebooks/"
# Left out: what waits for minutes, needs a network, is in another language, or asks for nbclient's options of kernels.
NOTEBOOKS = (
    f"{CLIENT}Clear Output.ipynb",
    f"{CLIENT}Disable Stdin.ipynb",
    f"{CLIENT}Empty Cell.ipynb",
    f"{CLIENT}Error.ipynb",
    f"{CLIENT}Factorials.ipynb",
    f"{CLIENT}Inline Image.ipynb",
    f"{CLIENT}Other Comms.ipynb",
    f"{CLIENT}SVG.ipynb",
    f"{CLIENT}Skip Exceptions with Cell Tags.ipynb",
    f"{CLIENT}Skip Exceptions.ipynb",
    f"{CLIENT}Skip Execution with Cell Tag.ipynb",
    f"{CLIENT}Unicode.ipynb",
    f"{CLIENT}UnicodePy3.ipynb",
    f"{CLIENT}update-display-id.ipynb",
    f"{CONVERT}exporters/files/attachment.ipynb",
    f"{CONVERT}exporters/files/notebook3.ipynb",
    f"{CONVERT}exporters/files/rawtest.ipynb",
    f"{CONVERT}exporters/files/rst_output.ipynb",
    f"{CONVERT}files/latex-linked-image.ipynb",
    f"{CONVERT}files/notebook3_with_errors.ipynb",
    f"{CONVERT}files/notebook4_jpeg.ipynb",
    f"{CONVERT}files/notebook5_embed_images.ipynb",
    f"{CONVERT}files/notebook_tags.ipynb",
    f"{CONVERT}preprocessors/files/MixedMarkdown.ipynb",
    f"{MILL}blank-vscode.ipynb",
    f"{MILL}broken.ipynb",
    f"{MILL}broken1.ipynb",
    f"{MILL}broken2.ipynb",
    f"{MILL}complex_parameters.ipynb",
    f"{MILL}line_magic_error.ipynb",
    f"{MILL}nb_version_4.4.ipynb",
    f"{MILL}no_parameters.ipynb",
    f"{MILL}report_mode_test.ipynb",
    f"{MILL}result_no_exec.ipynb",
    f"{MILL}s3/s3_in/s3-simple_notebook.ipynb",
    f"{MILL}simple_execute.ipynb",
    f"{MILL}sysexit.ipynb",
    f"{MILL}sysexit0.ipynb",
    f"{MILL}sysexit1.ipynb",
    f"{MILL}systemexit.ipynb",
    f"{MILL}test_autosave.ipynb",
    f"{MILL}test_notebooknode_io.ipynb",
)
BESIDE = {"Inline Image.ipynb": "python.png", "notebook4_jpeg.ipynb": "containerized_deployments.jpeg"}
"""Files that a notebook needs."""
NBCLIENT_S_OWN = {"update-display-id.ipynb": [5]}
"""Cells that it gives other outputs than Jupyter's pages do: it also updates results, where these update displays."""
NBCLIENT = """
import json, sys, warnings
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

warnings.simplefilter("ignore")
notebook = nbformat.read(sys.argv[1], as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}})
try:
    client.execute()
    outcome = "ok"
except CellExecutionError:
    outcome = "FAILED"
except DeadKernelError:
    outcome = "DIED"
outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
print(json.dumps({"outcome": outcome, "outputs": outputs}))
"""


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the source distributions are unpacked."""
    folder = tmp_path_factory.mktemp("distributions")
    for name, version in DISTRIBUTIONS.items():
        with tarfile.open(source_distribution(name, version)) as archive:
            archive.extractall(folder, filter="data")
    return folder


def source_distribution(name: str, version: str) -> Path:
    """A source distribution from the package index that pip is set up for."""
    kept = CACHE / f"{name}-{version}.tar.gz"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        try:
            done = subprocess.run(
                [*command, "--no-binary", name, "--dest", folder, f"{name}=={version}"],
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_SECONDS,
            )
            problem = done.stderr[-1000:]
        except subprocess.TimeoutExpired:
            problem = f"pip took longer than {DOWNLOAD_SECONDS} s"
        found = list(Path(folder).glob("*.tar.gz"))
        if not found:
            pytest.fail(f"The source distribution of {name} {version} could not be downloaded: {problem}")
        shutil.move(found[0], kept)
    return kept


class ByNbclient:
    """What nbclient gets when it runs a notebook in a folder; it runs beside what is done meanwhile."""

    def __init__(self, notebook: Path, folder: Path) -> None:
        command = [sys.executable, "-c", NBCLIENT, notebook, folder]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        """Once it has ended."""
        printed, errors = self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == 0, errors
        result: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return result


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_does_what_nbclient_says(cli: CommandLine, distributions: Path, name: str) -> None:
    source = distributions / name
    needed = [source.with_name(BESIDE[source.name])] if source.name in BESIDE else []
    (cli.folder / "theirs").mkdir()
    for file in needed:
        shutil.copy(file, cli.folder / "theirs")
    nbclient = ByNbclient(source, cli.folder / "theirs")
    put = [argument for file in needed for argument in ("--file", str(file))]
    done = cli("replay", source, "-o", "out.ipynb", "--html", "page.html", "--json", *put)
    theirs = nbclient.result()
    *cells, total = map(json.loads, done.stdout.splitlines())
    assert total["outcome"] == theirs["outcome"], done.stderr
    assert done.returncode == (0 if theirs["outcome"] == "ok" else 1)
    written = nbformat.read(cli.folder / "out.ipynb", as_version=4)
    nbformat.validate(written)
    ours = [cell.outputs for cell in written.cells if cell.cell_type == "code" and cell.source.strip()]
    assert len(ours) == len(theirs["outputs"]) == total["cells"]
    pairs = zip(theirs["outputs"], ours, strict=True)
    found = {number: compare_outputs(*pair, Tolerance(floats=1e-9)) for number, pair in enumerate(pairs, 1)}
    assert [number for number, differences in found.items() if differences] == NBCLIENT_S_OWN.get(source.name, []), (
        found
    )
    assert Page((cli.folder / "page.html").read_text()).harm == []
    assert len(cells) == total["run"] + sum(cell["outcome"] == "skipped" for cell in cells)


def test_one_that_ends_its_own_kernel(cli: CommandLine, distributions: Path) -> None:
    source = distributions / CLIENT / "Autokill.ipynb"
    nbclient = ByNbclient(source, cli.folder)
    done = cli("replay", source, "-o", "out.ipynb")
    assert nbclient.result()["outcome"] == "DIED"
    assert done.returncode == 1 and "DIED" in done.stdout


def test_one_that_never_ends(cli: CommandLine, distributions: Path) -> None:
    source = distributions / CLIENT / "Interrupt.ipynb"
    done = cli("replay", source, "-o", "out.ipynb", "--timeout", "2", "--keep-going")
    assert done.returncode == 1 and "TIMED OUT" in done.stdout
    first, second = (cell.outputs for cell in nbformat.read(cli.folder / "out.ipynb", 4).cells)
    assert first[0].ename == "KeyboardInterrupt" and second[0].text == "done\n"


def test_two_that_wait_for_each_other(cli: CommandLine, distributions: Path) -> None:
    for name in ("A", "B"):
        notebook = nbformat.read(distributions / CLIENT / f"Parallel Execute {name}.ipynb", as_version=4)
        # they look for each other for five seconds, which a slow machine may take to start one
        for cell in notebook.cells:
            cell.source = cell.source.replace("timeout = 5\n", "timeout = 60\n")
        # nbclient's own tests put this into the environment of their kernels
        setting = f"import os\nos.environ['NBEXECUTE_TEST_PARALLEL_TMPDIR'] = {str(cli.folder)!r}"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(setting))
        nbformat.write(notebook, cli.folder / f"{name}.ipynb")
    done = cli("replay", "A.ipynb", "B.ipynb", "-j", "2")
    assert done.returncode == 0, done.stderr


def test_papermill_s_parameters(cli: CommandLine, distributions: Path) -> None:
    done = cli("replay", distributions / MILL / "simple_execute.ipynb", "-o", "out.ipynb", "--set", "msg=Hello")
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(cli.folder / "out.ipynb", as_version=4).cells
    assert [cell.metadata.get("tags") for cell in cells[:2]] == [["parameters"], ["injected-parameters"]]
    assert cells[2].outputs[0].text == "Hello\n"
    missing = cli("replay", distributions / MILL / "no_parameters.ipynb", "-o", "out.ipynb", "--set", "msg=Hello")
    assert missing.returncode == 0 and "is tagged parameters" in missing.stderr
    assert nbformat.read(cli.folder / "out.ipynb", as_version=4).cells[0].metadata.tags == ["injected-parameters"]


def test_one_that_attacks_who_shows_it(docker_cli: CommandLine, distributions: Path) -> None:
    source = distributions / CONVERT / "exporters/files/notebook_inject.ipynb"
    done = docker_cli("replay", source, "-o", "out.ipynb", "--html", "page.html", "--check", "--keep-going")
    assert done.returncode in (0, 1), done.stderr
    assert Page((docker_cli.folder / "page.html").read_text()).harm == []
    assert not os.path.lexists("/tmp/pwned")  # noqa: PTH110 - a link that leads nowhere would count as well
