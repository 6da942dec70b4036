"""Each promise of README.md and SECURITY.md names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def promises(page: str, heading: str) -> list[str]:
    """The points under a heading of a page."""
    section = (ROOT / page).read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    return re.findall(r"^- .*$", section.split("\n## ")[0], re.MULTILINE)


@pytest.mark.parametrize(
    "page, heading", [("README.md", "What we promise"), ("SECURITY.md", "What a file cannot do")]
)
def test_every_promise_names_tests_that_exist(page, heading):
    points = promises(page, heading)
    assert len(points) >= 5
    for point in points:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", point)
        assert named, f"no test holds: {point}"
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            assert name in functions and name.startswith("test_"), f"{path} has no test {name}"
