"""kill -9 at any moment: what is committed stays, and the next run ends where an undisturbed one ends."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from test_benchmarks import BIN, ROOT
from test_extraction import Colours, make_table, run
from test_training import CONFIG, RECIPE, make_store

from lift.store import FeatureStore
from lift.training import fit, losses_by_epoch

DRAWN = ["table1_benchmark_statistics", "table2_chiral_accuracy"]
CLIPS = [f"{number:02d}.mp4" for number in range(24)]


def killed(work: Callable[[], object], after: float) -> bool:
    """Do the work in a fork of this process and kill it after some seconds; whether it was alive."""
    torch.set_num_threads(1)  # a fork has none of the others
    child = os.fork()
    if not child:
        os.setsid()  # the kill takes its workers, too
        code = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1), os.dup2(silence, 2)
            work()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + after
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert not status, "the work failed by itself"
            return False
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


# each comes from a process that never trained: autograd refuses to work in a fork of one that did
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["lift.training"])


def train(store: Path, out: Path) -> None:
    """A short training."""
    torch.set_num_threads(1)
    fit(store, CONFIG, RECIPE, out, progress=False)


def killed_training(store: Path, out: Path, after: float) -> bool:
    """Train in a fresh process and kill it after some seconds; whether it was alive."""
    child = FRESH.Process(target=train, args=(store, out))
    child.start()
    child.join(after)
    if alive := child.is_alive():
        child.kill()
    child.join()
    assert alive or not child.exitcode, "the training failed by itself"
    return alive


def kill_until_done(
    kill: Callable[[float], bool], kills: int, longest: float, dice: random.Random, check
) -> int:
    """Kill a work again and again, look at what it left, and at last let it end; how many kills."""
    count = 0
    for _ in range(kills):
        count += kill(dice.uniform(0.01, longest))
        check()
    assert not kill(120), "the last run hangs"
    return count


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kills", [3, pytest.param(15, marks=pytest.mark.slow_faults)])
def test_extraction_ends_with_the_same_features(tmp_path, videos, dice, workers, kills):
    table = make_table(CLIPS)
    run(table, tmp_path / "whole", videos)
    whole = FeatureStore.open(tmp_path / "whole")

    def work() -> None:
        backbone = Colours(before=lambda: time.sleep(0.02))
        options = {"workers": workers, "batch_size": 2, "shard_clips": 2}
        run(table, tmp_path / "store", videos, backbone, **options)

    def check() -> None:
        if (tmp_path / "store" / "store.json").exists():
            store = FeatureStore.open(tmp_path / "store")
            assert torch.equal(store.read(), whole.read(store.ids)) and not store.failures

    count = kill_until_done(partial(killed, work), kills, 0.6, dice, check)
    store = FeatureStore.open(tmp_path / "store")
    assert store.ids == whole.ids and torch.equal(store.read(), whole.read())
    assert count, "no run was alive when its kill came"


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow_faults)])
def test_training_ends_with_the_same_loss_and_weights(tmp_path, dice, kills):
    make_store(tmp_path / "store")
    kill = partial(killed_training, tmp_path / "store")
    assert not kill(tmp_path / "warm", 120)  # the first one waits for the imports
    started = time.monotonic()
    assert not kill(tmp_path / "whole", 120)
    longest = 0.8 * (time.monotonic() - started)  # so that the first kill finds it alive
    count = kill_until_done(partial(kill, tmp_path / "out"), kills, longest, dice, lambda: None)
    whole, resumed = (losses_by_epoch(tmp_path / name) for name in ("whole", "out"))
    assert resumed["epoch"].tolist() == whole["epoch"].tolist()
    assert resumed.iloc[-1].tolist() == whole.iloc[-1].tolist()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]
    assert count, "no run was alive when its kill came"


PROFILE = """
profile: killed
seed: 0
gallery: runs/killed/gallery
notebooks: []
synthetic: {clips: 2, test_clips: 1, difficulty: easy, size: 64}
features: {backbone: efficientnet_lite0, frames: 4, workers: WORKERS, compile: false}
model: {latent_dim: 16, depth: 1, heads: 2, epochs: 2, batch_size: 16, learning_rate: 0.0005}
bootstrap: 20
"""


def repository(copy: Path, workers: int = 1) -> Path:
    """A copy of what the steps of `make reproduce` need, with the smallest profile."""
    for folder in ("lift", "tools", "nbs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", copy / "Snakefile")
    (copy / "config").mkdir()
    (copy / "config" / "killed.yaml").write_text(PROFILE.replace("WORKERS", str(workers)))
    return copy


def start(copy: Path, *targets: str, cores: int = 1) -> subprocess.Popen:
    """The steps of `make reproduce` as far as some products."""
    command = [
        BIN / "snakemake", *targets, "--cores", str(cores), "--configfile", "config/killed.yaml",
        "--nolock", "--rerun-incomplete", "--scheduler", "greedy",
    ]  # fmt: skip
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(copy), "IN_TEST": "1"}
    silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=copy, env=environment, start_new_session=True, **silence)


def finish(process: subprocess.Popen) -> None:
    """Wait for an end without an error."""
    said = process.communicate(timeout=600)[1]  # read as it comes: a full pipe would stop it
    assert not process.returncode, said.decode()


@pytest.mark.slow_faults
def test_the_workflow_goes_on_after_each_kill(tmp_path, dice):
    copies = [repository(tmp_path / name) for name in ("whole", "killed")]
    target = "runs/killed/model/model.safetensors"
    began = time.monotonic()
    finish(start(copies[0], target))
    seconds = time.monotonic() - began
    for _ in range(3):
        victim = start(copies[1], target)
        try:
            victim.wait(dice.uniform(1, seconds / 2))
        except subprocess.TimeoutExpired:
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
    finish(start(copies[1], target))
    made = [(copy / target).read_bytes() for copy in copies]
    assert made[0] == made[1]


@pytest.mark.slow_faults
def test_tables_are_the_same_on_one_and_on_four_workers(tmp_path):
    """And in another order of the jobs. As many cores compute: bfloat16 kernels round by them."""
    tables = []
    for workers, drawn in ((1, DRAWN), (4, reversed(DRAWN))):
        copy = repository(tmp_path / str(workers), workers)
        finish(start(copy, *(f"runs/killed/notebooks/{name}.ipynb" for name in drawn), cores=2))
        found = sorted((copy / "runs/killed/figures").rglob("*.csv"))
        tables.append({str(path.relative_to(copy)): path.read_bytes() for path in found})
    assert tables[0] == tables[1] and len(tables[0]) >= len(DRAWN)
