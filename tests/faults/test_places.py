"""Places that run out: an error that says so, and a store that can still be read."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_extraction import Colours, make_table, run
from test_kills import CLIPS, killed
from test_store import assert_whole, features_of, make_store, name_clips

from lift import store as store_module
from lift.store import FeatureStore

HERE = Path(__file__).parent


def python(code: str, *arguments: object, before: str = "") -> subprocess.CompletedProcess:
    """Run code in a process of its own, in a shell that first does something to its machine."""
    command = ["unshare", "-m"] if "mount" in before else []
    command += ["bash", "-c", f'{before} exec "$0" "$@"', sys.executable, "-c", code]
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True
    )


def may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return sys.platform == "linux" and not subprocess.run(command, capture_output=True).returncode


EXTRACT = """
import sys
from pathlib import Path
from test_places import CLIPS, make_table, run
print(run(make_table(CLIPS), sys.argv[1], Path(sys.argv[2]), workers=2, batch_size=1, shard_clips=1))
"""


def test_64_open_files_are_enough(tmp_path, videos):
    result = python(EXTRACT, tmp_path / "store", videos, before="ulimit -n 64;")
    assert result.returncode == 0 and "24 clips done" in result.stdout, result.stderr
    read = "import sys; from lift.store import FeatureStore as F; F.open(sys.argv[1]).read()"
    assert not python(read, tmp_path / "store", before="ulimit -n 64;").returncode


FILL = """
import sys
from pathlib import Path
from test_store import features_of, make_store, name_clips
from lift.store import FeatureStore, StoreError
store, count = make_store(Path(sys.argv[1]) / "store"), 0
try:
    while count < 5000:
        names = name_clips(count, count + 50)
        store.append(names, features_of(names))
        count += 50
except StoreError as error:
    print(error)
left = FeatureStore.open(store.path)
assert len(left) == count and left.read().isfinite().all()
assert not list(store.path.rglob(".*.part")), "a half file is left"
"""


@pytest.mark.parametrize(
    "how, words",
    [("size=300k", "No space left"), ("nr_inodes=20", "No space left")],
    ids=["bytes", "files"],
)
def test_a_full_disk_is_named_and_the_store_stays_readable(tmp_path, how, words):
    if not may_mount():
        pytest.skip("mounting a small disk is not allowed here")
    mount = f"mount -t tmpfs -o {how} tmpfs {tmp_path} &&"
    result = python(FILL, tmp_path, before=mount)
    assert result.returncode == 0, result.stderr
    assert words in result.stdout and "intact" in result.stdout and result.stdout.count("\n") == 1


APPEND = """
import sys
from test_store import features_of
from lift.store import FeatureStore, StoreError
store = FeatureStore.open(sys.argv[1])
try:
    store.append(["clip-0099"], features_of(["clip-0099"]))
except StoreError as error:
    print(error)
print(len(store.read()))
"""


def test_a_read_only_disk_is_named_and_the_store_stays_readable(tmp_path):
    if not may_mount():
        pytest.skip("mounting a disk to read only is not allowed here")
    make_store(tmp_path / "store").append(name_clips(0, 8), features_of(name_clips(0, 8)))
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} &&"
    result = python(APPEND, tmp_path / "store", before=mount)
    assert result.returncode == 0, result.stderr
    assert "Read-only file system" in result.stdout and result.stdout.endswith("\n8\n")
    assert_whole(tmp_path / "store", name_clips(0, 8))


def test_two_runs_at_once_fill_one_store_with_each_clip_once(tmp_path, videos):
    table = make_table(CLIPS)

    def work() -> None:
        backbone = Colours(before=lambda: time.sleep(0.02))
        run(table, tmp_path / "store", videos, backbone, batch_size=2, shard_clips=2)

    torch.set_num_threads(1)
    other = os.fork()
    if not other:
        try:
            work()
        finally:
            os._exit(0)
    assert not killed(work, 120)
    os.waitpid(other, 0)
    run(table, tmp_path / "alone", videos)
    both, alone = FeatureStore.open(tmp_path / "store"), FeatureStore.open(tmp_path / "alone")
    assert both.ids == alone.ids and torch.equal(both.read(), alone.read()) and not both.failures


@pytest.mark.parametrize("seconds", [-(10**9), -7200, 7200, 10**9])
def test_a_clock_that_jumps_costs_nothing(tmp_path, monkeypatch, seconds):
    store = make_store(tmp_path / "store")
    store.append(name_clips(0, 8), features_of(name_clips(0, 8)))
    now = time.time()
    monkeypatch.setattr(store_module.time, "time", lambda: now + seconds)
    for writer, number in ((store, 8), (FeatureStore.open(store.path), 9)):
        names = name_clips(number, number + 1)
        writer.append(names, features_of(names))
    assert_whole(store.path, name_clips(0, 10))
