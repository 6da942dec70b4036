"""The notebooks are the source: they are clean, the library is what they export, and each one is a stage of the DAG."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LIBRARY = [path for path in NOTEBOOKS if path.parent == ROOT / "nbs"]
PAPER = [path for path in NOTEBOOKS if path.parent.name == "paper"]


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def name(notebook: Path) -> str:
    return str(notebook.relative_to(ROOT / "nbs"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A copy of the sources in which nbdev has cleaned and exported every notebook."""
    copy = tmp_path_factory.mktemp("export")
    for folder in ("nbs", "lift"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for file in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / file, copy / file)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([BIN / command], cwd=copy, check=True, capture_output=True)
    return copy


def test_notebooks_are_clean(exported):
    unclean = [name(path) for path in NOTEBOOKS if path.read_bytes() != (exported / path.relative_to(ROOT)).read_bytes()]
    assert not unclean, f"run `make sync`: {unclean}"


def test_the_library_is_what_the_notebooks_export(exported):
    differs = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "lift").rglob("*.py")
        if path.read_bytes() != (exported / path.relative_to(ROOT)).read_bytes()
    ]
    new = {path.relative_to(exported) for path in (exported / "lift").rglob("*.py")}
    assert not differs, f"run `make sync`: {differs}"
    assert new == {path.relative_to(ROOT) for path in (ROOT / "lift").rglob("*.py")}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_outputs_hold_no_error_no_warning_and_no_path_of_a_machine(notebook):
    outputs = json.dumps([cell.get("outputs", []) for cell in cells(notebook)])
    assert '"output_type": "error"' not in outputs
    assert '"name": "stderr"' not in outputs
    assert not re.search(r"/(work|home|root|tmp|Users)/", outputs)


@pytest.mark.parametrize("notebook", LIBRARY, ids=name)
def test_library_notebooks_teach(notebook):
    kinds = [cell["cell_type"] for cell in cells(notebook)]
    opening = "".join(next(cell for cell in cells(notebook) if cell["cell_type"] == "markdown")["source"])
    assert re.match(r"# .+\n\n> .+", opening), "a title and a one-line promise"
    assert kinds.count("markdown") * 3 >= kinds.count("code"), "prose that teaches"
    assert any(cell.get("outputs") for cell in cells(notebook)), "executed: a reader sees what it makes"
    assert "assert" in "".join("".join(cell["source"]) for cell in cells(notebook))


@pytest.mark.parametrize("notebook", PAPER, ids=name)
def test_paper_notebooks_take_a_profile(notebook):
    tagged = [cell for cell in cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and 'profile = "smoke"' in "".join(tagged[0]["source"])
    assert not any(cell.get("outputs") for cell in cells(notebook)), "what it made is in figures/, not in the notebook"


def test_every_notebook_is_a_stage_of_the_dag():
    pipeline = (ROOT / "dvc.yaml").read_text()
    stages = set(re.findall(r"\w+", pipeline))
    yaml.safe_load(pipeline)
    assert not [name(path) for path in [*LIBRARY, *PAPER] if path.stem not in stages]
