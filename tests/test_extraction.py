"""Extraction: the same features in every run, all failures named, nothing lost by a crash."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from lift import extraction
from lift import store as store_module
from lift.extraction import WorkItem, decode_item, extract, work_items
from lift.store import FeatureStore, StoreError, StoreMismatchError
from lift.video import read_clip, write_video

SIZE = 32  # pixels


@pytest.fixture(autouse=True)
def nobody_left():
    """What a call started has ended with it; other tests' processes do not count."""
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


DEADLY, HANGING, FAULTY = 250, 200, 150  # red levels at which the transforms below misbehave


def transform(frames: torch.Tensor) -> torch.Tensor:
    return frames.permute(0, 3, 1, 2).contiguous()  # (T, 3, H, W)


def misbehave(frames: torch.Tensor) -> torch.Tensor:
    """Does to a worker what a decoder may do to it, on the clips painted for it."""
    red = float(frames[..., 0].float().mean())
    if abs(red - DEADLY) < 10:
        os.kill(os.getpid(), signal.SIGKILL)
    if abs(red - HANGING) < 10:
        time.sleep(600)
    if abs(red - FAULTY) < 10:
        raise RuntimeError("a decoder of my own is broken")
    return transform(frames)


class Colours(nn.Module):
    """A backbone with weights and a matrix product, so that batches matter if they can."""

    dim = 8
    description = {"name": "colours", "weights_hash": "0"}

    def __init__(self, transform=transform, before=lambda: None):
        super().__init__()
        self.transform, self.before = transform, before
        self.weight = torch.randn(3 * 16, self.dim, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        self.before()
        cells = nn.functional.adaptive_avg_pool2d(frames.flatten(0, 1).float() / 255, 4).flatten(
            1
        )  # (B * T, 48)
        return (cells @ self.weight).unflatten(0, frames.shape[:2])  # (B, T, 8)


def paint(path: Path, number: int, red: int | None = None, frames: int = 6) -> None:
    """A tiny video of its own: noise about a level that moves, or all red."""
    generator = np.random.default_rng(number)
    picture = (
        generator.integers(20, 120, (1, SIZE, SIZE, 3))
        + np.linspace(0, 80, frames)[:, None, None, None]
    )
    if red is not None:
        picture = np.broadcast_to(np.array([red, 20, 20]), (frames, SIZE, SIZE, 3))
    write_video(path, picture.astype(np.uint8))


def make_table(names: list[str]) -> pd.DataFrame:
    ids = [Path(name).stem for name in names]
    return pd.DataFrame({"clip_id": ids, "path": names, "start": np.nan, "end": np.nan})


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """40 whole videos and some that are none or do harm."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(40):
        paint(folder / f"{number:02d}.mp4", number)
    paint(folder / "long.mp4", 99, frames=96)
    for name, red in (("05-deadly", DEADLY), ("06-hanging", HANGING), ("07-faulty", FAULTY)):
        paint(folder / f"{name}.mp4", 0, red)
    (folder / "08-empty.mp4").touch()
    (folder / "09-text.mp4").write_text("no video at all")
    (folder / "10-truncated.mp4").write_bytes((folder / "00.mp4").read_bytes()[:1500])
    return folder


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return make_table([f"{number:02d}.mp4" for number in range(40)])


def run(table: pd.DataFrame, store, videos: Path, backbone: nn.Module | None = None, **options):
    options = {"frames": 4, "workers": 0, "progress": False, **options}
    return extract(table, store, backbone or Colours(), video_root=videos, **options)


@pytest.fixture(scope="module")
def undisturbed(videos, table, tmp_path_factory) -> torch.Tensor:
    """Features `(40, 4, 8)` of the whole table, one clip after the other, without `extract`."""
    backbone = Colours()
    clips = [transform(torch.from_numpy(read_clip(videos / path, 4))) for path in table["path"]]
    return torch.cat([backbone(clip[None]) for clip in clips]).half().float()


def assert_complete(store: Path, undisturbed: torch.Tensor) -> None:
    opened = FeatureStore.open(store)
    assert opened.ids == [f"{number:02d}" for number in range(40)] and opened.failures == {}
    assert torch.equal(opened.read(), undisturbed)


# What comes out


@pytest.mark.parametrize(
    "workers, batch_size, shard_clips", [(0, 8, 64), (1, 1, 7), (2, 3, 1), (2, 64, 1000)]
)
def test_features_do_not_depend_on_how_they_are_made(
    tmp_path, videos, table, undisturbed, workers, batch_size, shard_clips
):
    shuffled = table.sample(frac=1, random_state=0)
    report = run(
        shuffled, tmp_path / "store", videos, workers=workers, batch_size=batch_size,
        shard_clips=shard_clips,
    )  # fmt: skip
    assert (report.done, report.skipped, report.failed) == (40, 0, {})
    assert_complete(tmp_path / "store", undisturbed)


def test_what_is_done_is_not_done_again(tmp_path, videos, table, undisturbed):
    store = FeatureStore.create(tmp_path / "store", Colours.description, frames=4, dim=8)
    assert run(table[:30], store, videos).done == 30
    report = run(table, store, videos)
    assert (report.done, report.skipped) == (10, 30)
    seen = []
    assert (
        run(table, store, videos, Colours(before=lambda: seen.append(1)), workers=2).skipped == 40
    )
    assert not seen
    assert_complete(store.path, undisturbed)


def test_parts_of_a_file_are_read_with_it_open(tmp_path, videos, monkeypatch):
    opened = []

    class Counted(extraction.VideoFile):
        def __init__(self, path, size=None):
            opened.append(path)
            super().__init__(path, size)

    monkeypatch.setattr(extraction, "VideoFile", Counted)
    starts = np.linspace(0, 3, 20)
    parts = pd.DataFrame(
        {
            "clip_id": [f"part-{n:02d}" for n in range(20)],
            "path": "long.mp4",
            "start": starts,
            "end": starts + 0.5,
        }
    )
    report = run(parts.sample(frac=1, random_state=1), tmp_path / "store", videos)
    assert report.done == 20 and opened == [str(videos / "long.mp4")], "once for all its clips"
    expected = Colours()(
        transform(torch.from_numpy(read_clip(videos / "long.mp4", 4, starts[7], starts[7] + 0.5)))[
            None
        ]
    )
    assert torch.equal(
        FeatureStore.open(tmp_path / "store").read(["part-07"]), expected.half().float()
    )


@pytest.mark.parametrize(("late", "broken", "times"), [(True, False, 1), (False, True, 3)])
def test_a_file_is_opened_again_after_a_fault_in_reading_not_in_a_range(
    tmp_path, videos, monkeypatch, late, broken, times
):
    opened = []

    class Counted(extraction.VideoFile):
        def __init__(self, path, size=None):
            opened.append(path)
            super().__init__(path, size)

        def read_clip(self, frames, start, end, on_damage):
            if broken and start == 0:
                raise OSError("the disk has a fault")
            return super().read_clip(frames, start, end, on_damage)

    monkeypatch.setattr(extraction, "VideoFile", Counted)
    starts = np.array([0.0] * 9 + [1.0] * 15)  # three items of eight clips
    parts = pd.DataFrame(
        {
            "clip_id": [f"part-{n:02d}" for n in range(24)],
            "path": "long.mp4",
            "start": starts,
            "end": starts + 0.5,
        }
    )
    parts.loc[[3, 12], "end"] = 3600.0 if late else parts.loc[[3, 12], "end"]
    report = run(parts, tmp_path / "store", videos)
    assert len(report.failed) == (2 if late else 9) and len(opened) == times


def test_paths_are_below_the_root_or_absolute(tmp_path, videos):
    clips = make_table(
        ["00.mp4", str(videos / "01.mp4"), str(tmp_path / "söme dir" / "a clip.mp4")]
    )
    (tmp_path / "söme dir").mkdir()
    paint(tmp_path / "söme dir" / "a clip.mp4", 3)
    assert run(clips, tmp_path / "store", videos).done == 3


def test_fewer_frames_in_the_file_than_asked_for_repeat(tmp_path, videos):
    run(make_table(["00.mp4"]), tmp_path / "store", videos, frames=12)
    x = FeatureStore.open(tmp_path / "store").read()[0]  # (12, 8)
    assert x.shape == (12, 8) and torch.equal(x[0], x[1]) and not torch.equal(x[0], x[-1])


def test_a_smaller_decode_is_another_sampling(tmp_path, videos, table):
    run(table[:2], tmp_path / "small", videos, size=16)
    run(table[:2], tmp_path / "full", videos)
    small, full = (FeatureStore.open(tmp_path / name) for name in ("small", "full"))
    assert not torch.equal(small.read(), full.read())
    assert small.description == full.description == Colours.description
    with pytest.raises(StoreMismatchError, match="short_side"):
        run(table, full, videos, size=16)


def test_a_backbone_by_name(tmp_path, videos, table, monkeypatch):
    asked = []
    monkeypatch.setattr(extraction, "create_backbone", lambda name: asked.append(name) or Colours())
    assert run(table[:3], tmp_path / "store", videos, "colours").done == 3 and asked == ["colours"]


def test_the_unit_of_work_needs_nothing_around_it(videos):
    item = WorkItem(
        str(videos / "00.mp4"), (("whole", float("nan"), float("nan")), ("late", 99.0, 100.0))
    )
    (whole, frames), (late, cause) = decode_item(item, transform, 4, None)
    assert (whole, late) == ("whole", "late")
    assert frames.shape == (4, 3, SIZE, SIZE)
    assert frames.dtype == np.uint8
    assert "00.mp4" in cause and "99" in cause


def test_items_keep_files_together_and_small():
    table = make_table([f"{n % 2}.mp4" for n in range(20)]).assign(
        clip_id=[f"{n}" for n in range(20)], start=range(20), end=None
    )
    items = work_items(table, "videos")
    expected = [("0.mp4", 8), ("0.mp4", 2), ("1.mp4", 8), ("1.mp4", 2)]
    assert [(Path(item.path).name, len(item.clips)) for item in items] == expected
    assert [start for item in items[:2] for _, start, _ in item.clips] == list(range(0, 20, 2))


# The report


def test_the_report_says_it_in_a_line_and_in_json(tmp_path, videos, table):
    report = run(pd.concat([table[:3], make_table(["08-empty.mp4"])]), tmp_path / "store", videos)
    first, cause = str(report).splitlines()
    assert "3 clips done" in first
    assert "clips/s" in first
    assert "1 failed" in first
    assert "08-empty" in cause
    content = json.loads(report.to_json())
    assert content["done"] == 3
    assert set(content["failed"]) == {"08-empty"}
    assert content["clips_per_second"] > 0


def test_one_progress_bar_or_none(tmp_path, videos, table, capsys):
    run(table[:3], tmp_path / "store", videos, progress=True)
    assert "3/3" in (shown := capsys.readouterr().err) and "clips/s" in shown
    run(table, tmp_path / "store", videos, progress=False)
    assert capsys.readouterr() == ("", "")


# The same clip?


@pytest.fixture
def filled(tmp_path, videos):
    """A store of three clips of two files of its own, and their table."""
    for name, number in (("a.mp4", 1), ("b.mp4", 2)):
        paint(tmp_path / name, number, frames=48)
    times = {"start": [0.0, 1.0, np.nan], "end": [1.0, 2.0, np.nan]}
    table = pd.DataFrame(
        {"clip_id": ["a1", "a2", "b"], "path": ["a.mp4", "a.mp4", "b.mp4"], **times}
    )
    run(table, tmp_path / "store", tmp_path)
    return table


def features_of(table, path, videos) -> torch.Tensor:
    """What a store made from nothing holds for the table."""
    run(table, path, videos)
    return FeatureStore.open(path).read()


@pytest.mark.parametrize(
    "column, value, said",
    [
        ("start", 0.5, "start is 0.5 s, was 0 s"),
        ("end", 1.5, "end is 1.5 s, was 1 s"),
        ("end", np.nan, "end is empty, was 1 s"),
    ],
)
@pytest.mark.parametrize("verify", ["stat", "hash"])
def test_a_clip_of_another_range_is_done_again(tmp_path, filled, column, value, said, verify):
    changed = filled.copy()
    changed.loc[0, column] = value
    report = run(changed, tmp_path / "store", tmp_path, verify=verify)
    assert (report.done, report.skipped, report.redone) == (1, 2, {"a1": said})
    assert "1 done again because their file or range had changed:\n  a1: " + said in str(report)
    assert torch.equal(
        FeatureStore.open(tmp_path / "store").read(),
        features_of(changed, tmp_path / "new", tmp_path),
    )
    assert run(changed, tmp_path / "store", tmp_path, verify=verify).skipped == 3


@pytest.mark.parametrize("keep_time", [False, True])
def test_another_video_behind_the_same_path_is_done_again(tmp_path, filled, keep_time):
    before = (tmp_path / "a.mp4").stat()
    paint(tmp_path / "a.mp4", 7, frames=48)
    if keep_time:
        os.utime(tmp_path / "a.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    report = run(filled, tmp_path / "store", tmp_path)
    assert report.done == 2
    assert set(report.redone) == {"a1", "a2"}
    assert "a.mp4" in report.redone["a1"]
    assert torch.equal(
        FeatureStore.open(tmp_path / "store").read(),
        features_of(filled, tmp_path / "new", tmp_path),
    )


def test_a_changed_byte_is_seen_by_the_hash_alone_where_size_and_time_are_the_same(
    tmp_path, videos
):
    table = make_table(["v.mp4"])
    paint(tmp_path / "v.mp4", 1)
    run(table, tmp_path / "store", tmp_path, verify="hash")
    path, state = tmp_path / "v.mp4", (tmp_path / "v.mp4").stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(table, tmp_path / "store", tmp_path).redone == {}
    assert list(run(table, tmp_path / "store", tmp_path, verify="hash").redone.values()) == [
        "the file v.mp4 has other contents"
    ]


def test_a_new_time_of_the_same_bytes(tmp_path, videos):
    """With a hash the same bytes are not decoded again, and the new time is recorded."""
    table = make_table(["v.mp4"])
    paint(tmp_path / "v.mp4", 1)
    for verify, redone in (("stat", 1), ("hash", 0)):
        run(table, tmp_path / verify, tmp_path, verify=verify)
        os.utime(tmp_path / "v.mp4", ns=(1, 10**18 + redone))
        report = run(table, tmp_path / verify, tmp_path)
        assert (len(report.redone), report.skipped) == (redone, 1 - redone)
        assert FeatureStore.open(tmp_path / verify).source("v").modified == 10**18 + redone


def test_videos_that_were_moved_are_the_same(tmp_path, filled):
    (tmp_path / "moved" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).rename(tmp_path / "moved" / "deep" / name)
    assert run(filled, tmp_path / "store", tmp_path / "moved" / "deep").skipped == 3
    moved = filled.assign(path="deep/" + filled["path"])
    assert (report := run(moved, tmp_path / "store", tmp_path / "moved")).skipped == 3
    assert not report.redone


def test_a_video_that_is_gone_keeps_its_features_and_cannot_be_checked(tmp_path, filled):
    (tmp_path / "b.mp4").unlink()
    report = run(filled, tmp_path / "store", tmp_path)
    assert (report.skipped, report.redone, list(report.unchecked)) == (3, {}, ["b"])
    assert "1 that were there could not be checked:\n  b: b.mp4 is not there any more" in str(
        report
    )


def test_features_of_another_range_are_never_returned_though_the_new_ones_fail(tmp_path, filled):
    changed = filled.assign(start=[0.0, 50.0, np.nan], end=[1.0, 51.0, np.nan])
    report = run(changed, tmp_path / "store", tmp_path)
    assert list(report.failed) == ["a2"]
    assert FeatureStore.open(tmp_path / "store").ids == ["a1", "b"]
    assert "a2" in FeatureStore.open(tmp_path / "store").failures
    assert run(filled, tmp_path / "store", tmp_path).done == 1


def test_a_store_of_an_older_version_is_used_and_learns_what_is_there_now(tmp_path, filled):
    for part in (tmp_path / "store" / "index").iterdir():
        pq.write_table(pq.read_table(part).select(["clip_id", "shard", "row"]), part)
    report = run(filled, tmp_path / "store", tmp_path)
    assert (report.skipped, report.redone, len(report.unchecked)) == (3, {}, 3)
    assert "does not say what it was made of" in report.unchecked["a1"]
    assert run(filled, tmp_path / "store", tmp_path).unchecked == {}
    assert list(
        run(filled.assign(start=[0.25, 1.0, np.nan]), tmp_path / "store", tmp_path).redone
    ) == ["a1"]


def test_two_writers_that_find_the_same_change(tmp_path, filled):
    changed = filled.assign(end=[0.5, 2.0, np.nan])
    other = Colours(before=at_call(1, lambda: run(changed, tmp_path / "store", tmp_path)))
    report = run(changed, tmp_path / "store", tmp_path, other)
    assert list(report.redone) == ["a1"] and not report.failed
    assert torch.equal(
        FeatureStore.open(tmp_path / "store").read(),
        features_of(changed, tmp_path / "new", tmp_path),
    )


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("after", [True, False])
def test_a_run_that_ends_in_any_commit_of_a_change_leaves_no_stale_clip(
    tmp_path, filled, monkeypatch, number, after
):
    """1: the withdrawal, 2: the shard, 3: its part of the index."""
    changed, original, calls = filled.assign(end=[0.5, 2.0, np.nan]), os.replace, []

    def interrupted(source, target):
        calls.append(1)
        if len(calls) == number and not after:
            raise KeyboardInterrupt
        original(source, target)
        if len(calls) == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(changed, tmp_path / "store", tmp_path)
    expected = features_of(changed, tmp_path / "new", tmp_path)
    run(changed, tmp_path / "store", tmp_path)
    assert torch.equal(FeatureStore.open(tmp_path / "store").read(), expected)


def test_file_names_that_are_not_utf8(tmp_path, videos):
    name = os.fsdecode(b"caf\xe9.mp4")
    paint(tmp_path / "plain.mp4", 4)
    try:
        (tmp_path / "plain.mp4").rename(tmp_path / name)
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    table = pd.DataFrame({"clip_id": ["one"], "path": [Path(name)], "start": None, "end": None})
    assert run(table, tmp_path / "store", tmp_path).done == 1
    assert FeatureStore.open(tmp_path / "store").source("one").path == "caf\\xe9.mp4"
    assert run(table, tmp_path / "store", tmp_path).skipped == 1


# Failures


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_fails_is_named_with_its_cause_and_the_others_go_on(
    tmp_path, videos, table, undisturbed, workers
):
    bad = ["08-empty.mp4", "09-text.mp4", "10-truncated.mp4", "11-missing.mp4", "07-faulty.mp4"]
    late = make_table(["00.mp4"]).assign(clip_id="late", start=50.0, end=51.0)
    clips = pd.concat([make_table(bad), table, late])
    report = run(clips, tmp_path / "store", videos, Colours(misbehave), workers=workers)
    assert report.done == 40 and set(report.failed) == {*(Path(name).stem for name in bad), "late"}
    causes = {
        "08-empty": "empty",
        "09-text": "not a video",
        "10-truncated": "truncated",
        "11-missing": "no such file",
    }
    causes |= {"07-faulty": "RuntimeError: a decoder of my own", "late": "past the end"}
    for clip_id, cause in causes.items():
        assert cause in report.failed[clip_id] and ".mp4" in report.failed[clip_id]
    store = FeatureStore.open(tmp_path / "store")
    assert store.failures == report.failed
    assert torch.equal(store.read([f"{n:02d}" for n in range(40)]), undisturbed)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_nearest_frame_of_a_damaged_clip_is_counted_and_marked(tmp_path, videos, workers):
    (tmp_path / "whole.mp4").write_bytes((videos / "long.mp4").read_bytes())
    data = bytearray((videos / "long.mp4").read_bytes())
    middle = data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 2
    data[middle : middle + 300] = bytes(300)
    (tmp_path / "holed.mp4").write_bytes(data)
    table, store = make_table(["holed.mp4", "whole.mp4"]), tmp_path / "store"
    assert list(run(table, store, tmp_path, workers=workers).failed) == ["holed"]
    report = run(table, store, tmp_path, workers=workers, on_damage="nearest")
    replaced = report.damaged["holed"]
    assert (report.done, report.failed, list(report.damaged)) == (1, {}, ["holed"])
    assert 0 < replaced < 4 and json.loads(report.to_json())["damaged"] == {"holed": replaced}
    assert (
        f"1 have frames that stand for damaged ones, the nearest ones:\n  holed: {replaced}"
        in str(report)
    )
    os.utime(tmp_path / "holed.mp4", ns=(1, 1))  # the store learns the new time and forgets nothing
    again = run(table, store, tmp_path, workers=workers, verify="hash")
    assert (again.skipped, again.damaged) in ((2, report.damaged), (1, {}))
    table["path"] = ["whole.mp4", "whole.mp4"]
    mended = run(table, store, tmp_path, workers=workers)
    assert mended.damaged == {} and list(mended.redone) in (["holed"], [])
    with pytest.raises(ValueError, match="on_damage"):
        run(table, tmp_path / "other", tmp_path, on_damage="skip")


def test_a_clip_that_is_mended_is_no_failure_any_more(tmp_path, videos):
    clips = make_table(["mended.mp4"])
    assert run(clips, tmp_path / "store", tmp_path).failed
    paint(tmp_path / "mended.mp4", 1)
    assert run(clips, tmp_path / "store", tmp_path).done == 1
    assert FeatureStore.open(tmp_path / "store").failures == {}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e5])
def test_features_that_cannot_be_stored_are_a_failure_of_their_clip(tmp_path, videos, table, value):
    class Broken(Colours):
        def forward(self, frames):
            features = super().forward(frames)
            return torch.where(features == features[1], value, features)

    report = run(table[:4], tmp_path / "store", videos, Broken())
    assert report.done == 3 and list(report.failed) == ["01"] and "float16" in report.failed["01"]


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_clip_that_kills_its_worker_is_named_and_the_run_goes_on(
    tmp_path, videos, table, undisturbed, pause
):
    """With a pause the worker dies while the main process is in the backbone or in a commit."""
    handler = signal.getsignal(signal.SIGCHLD)
    clips = pd.concat([table, make_table(["05-deadly.mp4"])])
    backbone = Colours(misbehave, before=lambda: time.sleep(pause))
    report = run(
        clips, tmp_path / "store", videos, backbone, workers=2, batch_size=4, shard_clips=4
    )
    assert report.done == 40 and list(report.failed) == ["05-deadly"]
    assert "05-deadly.mp4" in report.failed["05-deadly"] and "died" in report.failed["05-deadly"]
    assert torch.equal(
        FeatureStore.open(tmp_path / "store").read([f"{n:02d}" for n in range(40)]), undisturbed
    )
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_decoder_that_hangs_is_named_and_the_run_goes_on(tmp_path, videos, table):
    clips = pd.concat([table[:8], make_table(["06-hanging.mp4"])])
    report = run(clips, tmp_path / "store", videos, Colours(misbehave), workers=1, timeout=1.5)
    assert report.done == 8 and list(report.failed) == ["06-hanging"]
    assert (
        "06-hanging.mp4: the process that decoded it timed out after 1.5 s"
        in report.failed["06-hanging"]
    )


# Runs that end early


def at_call(number: int, act):
    """A function that acts at its call `number`, from 1."""
    calls = []

    def count() -> None:
        calls.append(1)
        if len(calls) == number:
            act()

    return count


def raise_it(fault: BaseException):
    raise fault


@pytest.fixture
def interruptible():
    """Ctrl-C works, although a shell lets its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "act, kind",
    [
        (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt),
        (lambda: raise_it(RuntimeError("out of memory")), RuntimeError),
    ],
)
def test_an_interrupt_or_an_error_keeps_what_is_done(
    tmp_path, videos, table, undisturbed, workers, act, kind, interruptible
):
    with pytest.raises(kind):
        run(
            table, tmp_path / "store", videos, Colours(before=at_call(4, act)), workers=workers,
            batch_size=5,
        )  # fmt: skip
    assert len(FeatureStore.open(tmp_path / "store")) >= 15
    assert run(table, tmp_path / "store", videos).skipped >= 15
    assert_complete(tmp_path / "store", undisturbed)


def test_an_interrupt_within_a_commit(tmp_path, videos, table, undisturbed, monkeypatch):
    """Just after an index part got its name: the commit is done, though `append` never returned."""
    store = FeatureStore.create(tmp_path / "store", Colours.description, frames=4, dim=8)
    original = store_module._write_atomically

    def interrupted(path, write):
        original(path, write)
        if path.suffix == ".parquet" and len(list(path.parent.iterdir())) == 2:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "_write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(table, store, videos, batch_size=5, shard_clips=5)
    assert len(FeatureStore.open(tmp_path / "store")) == 10
    run(table, store, videos)
    assert_complete(tmp_path / "store", undisturbed)


def test_a_full_disk_keeps_what_is_committed(tmp_path, videos, table, undisturbed, monkeypatch):
    original, calls = store_module.save_file, []

    def fill(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "save_file", fill)
        with pytest.raises(StoreError, match="No space left"):
            run(table, tmp_path / "store", videos, batch_size=5, shard_clips=5)
    assert len(FeatureStore.open(tmp_path / "store")) == 10
    assert run(table, tmp_path / "store", videos).done == 30
    assert_complete(tmp_path / "store", undisturbed)


def test_two_runs_may_fill_one_store(tmp_path, videos, table, undisturbed):
    """Another machine commits clips of the same table while this one works on them."""
    store = FeatureStore.create(tmp_path / "store", Colours.description, frames=4, dim=8)
    other = FeatureStore.open(store.path)
    backbone = Colours(before=at_call(3, lambda: other.append(["11", "39"], undisturbed[[11, 39]])))
    report = run(table, store, videos, backbone, batch_size=5)
    assert not report.failed
    assert_complete(store.path, undisturbed)


EXTRACT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_extraction import Colours, make_table, run
table = make_table([f"{{number:02d}}.mp4" for number in range(40)])
backbone = Colours(before=lambda: time.sleep(0.1))
run(table, {store!r}, Path({videos!r}), backbone, workers=2, batch_size=2, shard_clips=3)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path, videos, table, undisturbed):
    code = EXTRACT.format(
        tests=str(Path(__file__).parent), store=str(tmp_path / "store"), videos=str(videos)
    )
    with subprocess.Popen([sys.executable, "-c", code]) as running:
        while (
            running.poll() is None and len(list((tmp_path / "store").glob("index/*.parquet"))) < 4
        ):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL, "the run was to be killed before its end"
    there = len(FeatureStore.open(tmp_path / "store"))
    assert 12 <= there < 40
    report = run(table, tmp_path / "store", videos, workers=2)
    assert (report.skipped, report.done) == (there, 40 - there)
    assert_complete(tmp_path / "store", undisturbed)


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path, videos, table):
    """10 or 40 files: if all frames were kept, the peaks would differ by 1.1 MB."""

    def peak(clips: pd.DataFrame, name: str) -> int:
        tracemalloc.start()
        run(clips, tmp_path / name, videos, workers=1, batch_size=2, shard_clips=4, frames=12)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(table[:10], "warm")
    assert peak(table, "many") < peak(table[:10], "few") + 400_000


# Bad input costs nothing


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda table: table.drop(columns="end"), "lacks the column end"),
        (lambda table: table[:0], "empty"),
        (
            lambda table: pd.concat([table, table[:1]]),
            "1 values are repeated clip ids, the first is '00'",
        ),
        (lambda table: table.assign(clip_id=range(len(table))), "clip_id.*no text"),
        (lambda table: table.assign(path=None), "path.*no text"),
        (lambda table: table.assign(start="soon"), "start.*no seconds"),
        (
            lambda table: table.assign(
                clip_id=pd.Series([f"\udce9{n}" for n in range(40)], dtype=object)
            ),
            "40 values are no UTF-8 text",
        ),
    ],
)
def test_a_bad_table_is_refused_before_anything_is_made(tmp_path, videos, table, change, message):
    with pytest.raises(ValueError, match=message):
        run(change(table), tmp_path / "store", videos)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        ("frames", 0),
        ("workers", -1),
        ("batch_size", 0),
        ("size", 0),
        ("timeout", 0),
        ("timeout", np.nan),
        ("verify", "size"),
    ],
)
def test_a_bad_number_is_refused_by_name(tmp_path, videos, table, name, value):
    with pytest.raises(ValueError, match=f"{name} is (at least|above|'stat')"):
        run(table, tmp_path / "store", videos, **{name: value})
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("as_path", [True, False])
def test_a_store_of_other_features_is_refused(tmp_path, videos, table, as_path):
    store = FeatureStore.create(
        tmp_path / "store", {**Colours.description, "weights_hash": "1"}, frames=4, dim=8
    )
    with pytest.raises(StoreMismatchError, match="weights_hash"):
        run(table, store.path if as_path else store, videos)
    with pytest.raises(StoreMismatchError, match="frames: 4 in the store, 5 asked for"):
        run(table, store.path if as_path else store, videos, frames=5)
