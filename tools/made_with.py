"""What a job depends on beside its inputs: the code that it runs, and its settings.

The code is found by its imports.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lift import _HOMES


def code_of(path: Path, text: str | None = None) -> str:
    """The Python of a module or of a notebook's cells; `text` replaces what the file holds now."""
    text = path.read_text() if text is None else text
    if path.suffix == ".py":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@cache
def imports(path: Path) -> set[Path]:
    """The files of the package that a module or notebook imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(code_of(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            public = [alias.name for alias in node.names if module == "lift"]
            names += [f"lift.{_HOMES[name]}" for name in public if name in _HOMES]
        else:
            continue
        found |= {Path(name.replace(".", "/") + ".py") for name in names if name.startswith("lift")}
    return {file for file in found if file.is_file()}


def with_imports(roots: Iterable[Path]) -> list[Path]:
    """Files, and all that they import from the package, directly or not."""
    wanted, found = set(roots), set()
    while wanted:
        path = wanted.pop()
        found.add(path)
        wanted |= imports(path) - found
    return sorted(found)


@cache
def made_with(*roots: str | Path, settings: str = "") -> str:
    """A hash of files, of all that they import from the package, and of the settings."""
    content = "".join(f"{path}\n{code_of(path)}" for path in with_imports(map(Path, roots)))
    return hashlib.sha256((content + settings).encode()).hexdigest()[:16]
