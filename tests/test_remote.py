"""Remote paths: the same frames as from the disk, files known by size and time, errors by path."""

from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch

from lift.extraction import ExtractionReport, extract
from lift.io import InputError
from lift.remote import file_state, forget_copies, join, local_file
from lift.store import FeatureStore
from lift.video import VideoError, read_clip, write_video


class MeanColour(torch.nn.Module):
    dim, description = 3, {"name": "mean colour", "weights_hash": "none"}

    @staticmethod
    def transform(frames: torch.Tensor) -> torch.Tensor:
        return frames.permute(0, 3, 1, 2).contiguous()  # (T, 3, H, W)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.float().mean((-1, -2)) / 255  # (B, T, 3)


def video(path: Path, red: int) -> bytes:
    write_video(path, np.full((6, 32, 32, 3), (red, 90, 60), np.uint8))
    return path.read_bytes()


@pytest.fixture
def bucket(tmp_path):
    """A folder in memory with two videos, and their bytes on the disk."""
    for name, red in (("a", 200), ("b", 40)):
        with fsspec.open(f"memory://bucket/{name}.mp4", "wb") as file:
            file.write(video(tmp_path / f"{name}.mp4", red))
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    forget_copies()


def run(table_paths: list[str], store: Path, **options) -> ExtractionReport:
    names = [Path(path).stem for path in table_paths]
    table = pd.DataFrame({"clip_id": names, "path": table_paths, "start": np.nan, "end": np.nan})
    return extract(table, store, MeanColour(), frames=4, progress=False, **options)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_are_those_of_the_file_on_the_disk(bucket, tmp_path, decoder):
    if decoder == "decord":
        pytest.importorskip("decord")
    remote = read_clip(f"{bucket}/a.mp4", 4, decoder=decoder)
    assert np.array_equal(remote, read_clip(tmp_path / "a.mp4", 4, decoder=decoder))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_of_remote_paths_gives_the_features_of_local_ones(bucket, tmp_path, workers):
    run(["a.mp4", "b.mp4"], tmp_path / "local", video_root=tmp_path, workers=0)
    run(["a.mp4", "b.mp4"], tmp_path / "memory", video_root=bucket, workers=workers)
    run([f"file://{tmp_path}/a.mp4", f"{bucket}/b.mp4"], tmp_path / "mixed", workers=workers)
    stores = [FeatureStore.open(tmp_path / name) for name in ("local", "memory", "mixed")]
    assert torch.equal(stores[0].read(), stores[1].read())
    assert torch.equal(stores[0].read(), stores[2].read())
    assert stores[1].source("a").size == (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize("verify", ["stat", "hash"])
def test_another_remote_file_behind_the_same_path_is_done_again(bucket, tmp_path, verify):
    options = {"video_root": bucket, "workers": 0, "verify": verify}
    run(["a.mp4", "b.mp4"], tmp_path / "store", **options)
    again = run(["a.mp4", "b.mp4"], tmp_path / "store", **options)
    assert (again.done, again.skipped) == (0, 2)
    before = FeatureStore.open(tmp_path / "store").read(["a"])
    with fsspec.open(f"{bucket}/a.mp4", "wb") as file:
        file.write(video(tmp_path / "new.mp4", 90))
    report = run(["a.mp4", "b.mp4"], tmp_path / "store", **options)
    assert list(report.redone) == ["a"] and (report.done, report.skipped) == (1, 1)
    assert not torch.equal(FeatureStore.open(tmp_path / "store").read(["a"]), before)


def test_what_is_not_there_or_is_no_video_fails_by_its_path(bucket, tmp_path):
    with fsspec.open(f"{bucket}/text.mp4", "wb") as file:
        file.write(b"no video at all")
    report = run([f"{bucket}/{n}.mp4" for n in ("a", "gone", "text")], tmp_path / "s", workers=0)
    assert report.failed["gone"] == f"{bucket}/gone.mp4: no such file"
    assert report.failed["text"].startswith(f"{bucket}/text.mp4: not a video")
    assert report.done == 1
    with pytest.raises(VideoError, match=f"{bucket}/gone.mp4: no such file"):
        read_clip(f"{bucket}/gone.mp4")


def test_a_file_system_that_nobody_knows_is_named_before_any_work(tmp_path):
    with pytest.raises(InputError, match="nowhere://b/a.mp4: fsspec cannot read it"):
        run(["nowhere://b/a.mp4"], tmp_path / "store", workers=0)
    assert not list((tmp_path / "store").glob("shards/*"))


def test_copies_are_few_and_are_deleted(bucket):
    first = local_file(f"{bucket}/a.mp4")
    assert first == local_file(f"{bucket}/a.mp4") and first.suffix == ".mp4"
    size, modified = file_state(f"{bucket}/a.mp4")
    assert size == first.stat().st_size and modified > 0
    forget_copies()
    assert not first.exists()


@pytest.mark.parametrize(
    "root, path, joined",
    [
        ("s3://b/v/", "a.mp4", "s3://b/v/a.mp4"),
        ("s3://b", "gs://c/a.mp4", "gs://c/a.mp4"),
        ("s3://b", "/disk/a.mp4", "/disk/a.mp4"),
        ("v", "cam:01.mp4", "v/cam:01.mp4"),
        (None, "a.mp4", "a.mp4"),
    ],
)
def test_roots_and_paths_may_each_be_remote(root, path, joined):
    assert join(root, path) == joined
