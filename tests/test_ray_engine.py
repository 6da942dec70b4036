"""Extraction on Ray: the same store byte for byte, and nothing lost when processes are killed."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from lift import ray_engine
from lift.extraction import Mended, extract
from lift.io import InputError, MissingExtraError
from lift.store import FeatureStore
from lift.video import write_video

CLIPS = 30


class Cells(nn.Module):
    """A backbone that kills, once per marker, its own process or that of a decoding task."""

    dim, description = 8, {"name": "cells", "weights_hash": "0"}

    def __init__(self, markers: Path | None = None):
        super().__init__()
        self.markers = markers
        self.weight = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0))

    def once(self, name: str, process: int) -> None:
        if self.markers and (marker := self.markers / name).exists():
            marker.unlink()
            os.kill(process, signal.SIGKILL)

    def transform(self, frames: torch.Tensor) -> torch.Tensor:
        if float(frames.float().mean()) > 60:  # not among the first
            self.once("task", os.getppid())  # clips are decoded in a child of the task
        return frames.permute(0, 3, 1, 2).contiguous()  # (T, 3, H, W)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if float(frames.float().mean()) > 60:
            self.once("actor", os.getpid())
        cells = nn.functional.adaptive_avg_pool2d(
            frames.flatten(0, 1).float(), 4
        )  # (B * T, 3, 4, 4)
        return (cells.flatten(1) @ self.weight).unflatten(0, frames.shape[:2])  # (B, T, 8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(CLIPS):
        frames = np.random.default_rng(number).integers(0, 20 + 8 * number, (6, 32, 32, 3))
        write_video(folder / f"{number:02d}.mp4", frames.astype(np.uint8))
    (folder / "07.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    names = [f"{number:02d}" for number in range(CLIPS)]
    table = pd.DataFrame({"clip_id": names, "path": [f"{name}.mp4" for name in names]})
    return table.assign(start=np.nan, end=np.nan)


def run(table, store: Path, videos: Path, backbone: nn.Module, **options):
    options |= {"frames": 4, "workers": 2, "batch_size": 4, "shard_clips": 8}
    return extract(
        table, store, backbone, video_root=videos, progress=False, shard_seconds=1e6, **options
    )


def content(store: Path) -> list:
    """Bytes of each shard and rows of each part of the index, without the random part of names."""
    parts = [pq.read_table(path).drop_columns("shard") for path in sorted(store.glob("index/*"))]
    shards = [path.read_bytes() for path in sorted(store.glob("shards/*"))]
    header = [(store / name).read_bytes() for name in ("store.json", "failures.json")]
    return [header, shards, [part.to_pylist() for part in parts]]


def test_ray_makes_the_same_store_though_a_task_and_an_actor_are_killed(
    tmp_path, videos, table, monkeypatch
):
    ray = pytest.importorskip("ray")
    here, others = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{others}")  # its workers know Cells
    (tmp_path / "task").touch()
    (tmp_path / "actor").touch()
    local = run(table, tmp_path / "local", videos, Cells())
    try:
        report = run(table, tmp_path / "ray", videos, Cells(tmp_path), engine="ray")
    finally:
        ray.shutdown()
    assert not {"task", "actor"} & set(os.listdir(tmp_path)), "one was not killed"
    assert (report.done, report.failed) == (CLIPS - 1, local.failed) and "07" in report.failed
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    assert len(FeatureStore.open(tmp_path / "ray")) == CLIPS - 1


def test_a_missing_ray_and_another_engine_are_named(tmp_path, videos, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"lift\[ray\]\""):
        run(table, tmp_path / "store", videos, Cells(), engine="ray")
    with pytest.raises(InputError, match="engine is local or ray, got 'spark'"):
        run(table, tmp_path / "store", videos, Cells(), engine="spark")
    assert not (tmp_path / "store").exists()


def test_results_come_back_from_a_task_as_they_went(monkeypatch):
    """Without Ray: its references are the values themselves."""
    monkeypatch.setattr(ray_engine, "_get", lambda value: value)
    first, second = np.zeros((2, 3, 4, 4), np.uint8), np.ones((2, 3, 4, 4), np.uint8)
    results = [[("a", first), ("b", "b.mp4: not a video")], [("c", Mended(second, 2))]]
    back = list(ray_engine._results(list(ray_engine._decode(lambda bundle: results, []))))
    assert [[clip_id for clip_id, _ in clips] for clips in back] == [["a", "b"], ["c"]]
    assert back[0][0][1] is first and back[0][1][1] == "b.mp4: not a video"
    assert back[1][0][1].frames is second and back[1][0][1].replaced == 2
