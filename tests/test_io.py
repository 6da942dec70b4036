"""Files are whole or not there, hashes are those that stored products hold, all errors of the package have one base."""

import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import lift
from lift.io import LiftError, short_hash, write_json, write_text, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_midway_leaves_the_old_file_and_no_litter(tmp_path, fault):
    write_text(tmp_path / "a.txt", "old")

    def half(part: Path) -> None:
        part.write_text("ne")
        raise fault

    with pytest.raises(type(fault)):
        write_whole(tmp_path / "a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, call):
    write_text(tmp_path / "a.txt", "old")

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file_and_a_name_that_the_store_sweeps(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = f"""
import os, signal
from lift.io import write_whole
def die(part):
    part.write_text("ne")
    os.kill(os.getpid(), signal.SIGKILL)
write_whole({str(tmp_path / "a.txt")!r}, die)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(names(tmp_path)) == 2 and len(list(tmp_path.glob(".*.part"))) == 1


def test_content_is_on_the_disk_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))
        )
    write_text(tmp_path / "a.txt", "new")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "plain")}
    assert modes == {0o666 & ~mask}


def test_only_text_and_json_make_their_folder(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "x")
    write_json(tmp_path / "newer" / "a.json", {})
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "gone" / "a.txt", lambda part: part.write_text("x"))
    assert names(tmp_path) == ["new", "newer"]


def test_text_keeps_its_line_ends_and_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "a\nb\r\né")
    assert (tmp_path / "a.txt").read_bytes() == b"a\nb\r\n\xc3\xa9"


def test_equal_content_makes_equal_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1], "a": "é"})
    write_json(tmp_path / "b.json", {"a": "é", "b": [1]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "é", "b": [1]}
    write_json(tmp_path / "c.json", {"a": "é"}, indent=1, ensure_ascii=False)
    assert (tmp_path / "c.json").read_text(encoding="utf-8") == '{\n "a": "é"\n}\n'


def test_a_short_hash_is_the_beginning_of_sha256_of_the_parts_together():
    whole = hashlib.sha256("aé".encode() + b"\xff").hexdigest()
    assert short_hash(["a", "é", b"\xff"]) == whole[:16]
    assert short_hash(["aé", b"\xff"], 8) == whole[:8]
    assert short_hash(iter(["a", "b"])) != short_hash(["b", "a"])


def test_importing_it_needs_no_torch():
    code = "import lift.io, sys; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def own_errors() -> list[type[Exception]]:
    """The exception classes that modules of the package define."""
    modules = [
        importlib.import_module(info.name) for info in pkgutil.walk_packages(lift.__path__, "lift.")
    ]
    classes = {
        value for module in modules for value in vars(module).values() if inspect.isclass(value)
    }
    own = [c for c in classes if issubclass(c, Exception) and c.__module__.startswith("lift.")]
    # it never leaves lift.video
    return sorted((c for c in own if c.__name__ != "DecoderFault"), key=str)


def test_all_errors_of_the_package_have_one_base_and_most_are_value_errors_still():
    errors = own_errors()
    assert len(errors) >= 10, "they are found"
    assert not [error for error in errors if not issubclass(error, LiftError)]
    expected = ["VideoError", "LiftError", "MissingExtraError"]
    assert [error.__name__ for error in errors if not issubclass(error, ValueError)] == expected
