"""What a job depends on: the code that it imports, directly or not, and its settings."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from made_with import imports, made_with  # noqa: E402


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "lift" / "data").mkdir(parents=True)
    files = {
        "a.py": "from .b import x\n",
        "b.py": "def f():\n    from lift.data.c import y\n",
        "data/c.py": "from ..d import z\n",
        "d.py": "z = 1\n",
        "e.py": "",
    }
    for name, text in files.items():
        (tmp_path / "lift" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    imports.cache_clear()
    made_with.cache_clear()
    yield tmp_path / "lift"
    imports.cache_clear()
    made_with.cache_clear()


def changed(package: Path, name: str) -> str:
    (package / name).write_text((package / name).read_text() + "# more\n")
    imports.cache_clear()
    made_with.cache_clear()
    return made_with("lift/a.py")


def test_imports_are_followed_relative_absolute_and_inside_functions(package):
    assert imports(Path("lift/b.py")) == {Path("lift/data/c.py")}
    assert imports(Path("lift/data/c.py")) == {Path("lift/d.py")}
    before = made_with("lift/a.py")
    assert changed(package, "e.py") == before, "nothing imports it"
    for name in ("a.py", "b.py", "data/c.py", "d.py"):
        after = changed(package, name)
        assert after != before, name
        before = after
    assert made_with("lift/a.py", settings="depth: 3") != before


def test_a_touch_changes_nothing(package):
    before = made_with("lift/a.py")
    (package / "d.py").touch()
    made_with.cache_clear()
    assert made_with("lift/a.py") == before


def test_public_names_lead_to_their_module(monkeypatch):
    monkeypatch.chdir(ROOT)
    imports.cache_clear()
    assert Path("lift/embedding.py") in imports(Path("nbs/tutorials/find_opposites.ipynb"))
