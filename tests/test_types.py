"""Annotations and code agree: mypy, with the rules of mypy.ini, finds no fault in the library."""

import ast
import subprocess
import sys
from pathlib import Path

import lift

ROOT = Path(__file__).parents[1]


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    """mypy in the root of the repository, where its rules and its cache are."""
    command = [sys.executable, "-m", "mypy", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_types_of_the_library_hold():
    result = mypy()
    assert not result.returncode, result.stdout[-4000:] + result.stderr[-1000:]


def test_a_wrong_call_of_the_library_is_found(tmp_path):
    """The library has types in the eyes of the checker: it is not skipped."""
    file = tmp_path / "wrong.py"
    file.write_text("from lift import curvature\n\ncurvature('clip')\n")
    result = mypy(str(file))
    assert result.returncode == 1
    assert '"curvature" has incompatible type "str"' in result.stdout


def test_the_checker_sees_every_public_name_where_it_is():
    tree = ast.parse((ROOT / "lift" / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.asname: found.module for found in block.body for name in found.names}
    assert seen == {name: f"lift.{home}" for name, home in lift._HOMES.items()}
    assert (ROOT / "lift" / "py.typed").is_file(), "PEP 561: else the types do not count"
