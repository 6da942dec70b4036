"""tools/warm_kernels.py: notebooks in forks of one process that has imported the library."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

TOOL = Path(__file__).parents[1] / "tools" / "warm_kernels.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")


def write_notebook(path: Path, *cells: str) -> str:
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=kernel), path)
    return str(path)


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    full = [sys.executable, str(TOOL), "bash", "-c", command]
    environment = os.environ | environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(full, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def outputs(path: Path) -> list[str]:
    return [cell.outputs[0]["text"].strip() for cell in nbformat.read(path, 4).cells if cell.outputs and "text" in cell.outputs[0]]


def test_notebooks_are_forks_with_their_own_folder_environment_and_fate(tmp_path):
    (tmp_path / "inside").mkdir()
    good = write_notebook(
        tmp_path / "good.ipynb",
        "import sys\nprint({'lift.training', 'lightning', 'seaborn'} <= sys.modules.keys())",
        "import os\nprint(os.getcwd(), os.environ['GIVEN'])",
        "import matplotlib.pyplot as plt\nprint(plt.get_backend())",
    )
    bad = write_notebook(tmp_path / "bad.ipynb", "raise ValueError('as it should')")
    command = f"papermill {good} out.ipynb --cwd inside && papermill {bad} bad-out.ipynb || exit 3"
    result = run(command, tmp_path, GIVEN="a value")
    assert result.returncode == 3 and "ValueError: as it should" in result.stderr, result.stderr
    assert "To connect another client" not in result.stdout + result.stderr
    warm, place, backend = outputs(tmp_path / "out.ipynb")
    assert warm == "True" and "inline" in backend
    assert place == f"{tmp_path / 'inside'} a value"


def test_a_killed_papermill_leaves_no_kernel(tmp_path):
    note = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(200)"
    notebook = write_notebook(tmp_path / "long.ipynb", note)
    command = f"papermill {notebook} out.ipynb & while [ ! -s pid ]; do sleep 0.1; done; kill -9 $!; sleep 4"
    assert run(command, tmp_path).returncode == 0
    kernel = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{kernel}").exists():
            return
        time.sleep(0.1)
    pytest.fail(f"the kernel {kernel} is still there")
