"""Which committed figures and tables were made by other code than the present one, and by how much.

    python tools/made_by.py [figures/full/hard_clips ...] [--fail]

It informs: an old table is no fault. With --fail the exit status is 1 where one of them is old.
"""

import argparse
import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml
from made_with import code_of, with_imports

# what makes clips, features, models and results before a notebook draws them
RENDERED = ("data/synthetic", "extraction", "training", "equivariant")
REAL = ("bases", "extraction", "training", "equivariant")


class _Essence(ast.NodeTransformer):
    """What code does: docstrings and annotations of functions change nothing."""

    def _bare(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if hasattr(node, "returns"):
            node.returns = None
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _bare

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


@cache
def essence(path: Path, commit: str = "") -> str:
    """What a file does, now or at a commit; "" where it is not there."""
    text = _at(path, commit) if commit else path.read_text(encoding="utf-8")
    if path.suffix not in (".py", ".ipynb") or not text:
        return text.strip()
    return ast.dump(_Essence().visit(ast.parse(code_of(path, text))))


def _at(path: Path, commit: str) -> str:
    """The text of a file at a commit, "" where it was not there."""
    shown = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, text=True)
    return shown.stdout


def sources(notebook: Path, profile: Path) -> list[Path]:
    """The profile, the notebook, and all modules that it or an earlier step imports."""
    steps = REAL if "real" in yaml.safe_load(profile.read_text(encoding="utf-8")) else RENDERED
    return [profile, *with_imports([notebook, *(Path(f"lift/{step}.py") for step in steps)])]


def changed(folder: Path) -> tuple[str, list[str], int] | None:
    """Commit of a folder of figures, the sources that differ from it, and how many there are.

    None where the commit is not known here.
    """
    made = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    commit = made["commit"].removesuffix("-dirty")
    if subprocess.run(["git", "cat-file", "-e", commit], capture_output=True).returncode:
        return None
    now = sources(Path(f"nbs/paper/{folder.name}.ipynb"), Path(f"config/{made['profile']}.yaml"))
    differ = [path.stem for path in now if essence(path) != essence(path, commit)]
    return made["commit"], differ, len(now)


def tell(folder: Path, found: tuple[str, list[str], int] | None) -> str:
    """One line about a folder of figures and what `changed` found."""
    if found is None:
        return f"{folder}: made by a commit that this clone does not have"
    commit, differ, count = found
    short = commit[:7] + "-dirty" * commit.endswith("-dirty")
    if not differ:
        return f"{folder}: the code of {short} does the same as the present one"
    return f"{folder}: {len(differ)} of {count} sources differ from {short}: {', '.join(differ)}"


def committed() -> list[Path]:
    """The folders of figures that have a provenance, in order."""
    return sorted(path.parent for path in Path("figures").glob("*/*/provenance.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="all of figures/ where none is given")
    parser.add_argument("--fail", action="store_true", help="exit with 1 where one is old")
    asked = parser.parse_args()
    found = {folder: changed(folder) for folder in asked.folders or committed()}
    print("\n".join(tell(*item) for item in found.items()))
    old = [folder for folder, change in found.items() if change is None or change[1]]
    sys.exit(1 if asked.fail and old else 0)
