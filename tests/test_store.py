"""The feature store: what is committed is whole and stays, whatever happens to a writer; what is damaged is named."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lift import store as store_module
from lift.store import ClipSource, FeatureStore, StoreError, StoreMismatchError, StoreView

FRAMES, DIM = 4, 6
DESCRIPTION = {
    "name": "made up",
    "weights_hash": "0",
    "weights": "here",
    "preprocessing": {"mean": [0.5, 0.5]},
}


def make_store(path: Path, **changes) -> FeatureStore:
    return FeatureStore.open_or_create(
        path, **{"description": DESCRIPTION, "frames": FRAMES, "dim": DIM, **changes}
    )


def features_of(ids: list[str]) -> torch.Tensor:
    """Features that are known from the id, so that a reader can tell whether a clip is whole: `(N, FRAMES, DIM)`."""
    numbers = torch.tensor([float(clip_id.split("-")[1]) for clip_id in ids])
    return numbers[:, None, None] + torch.arange(FRAMES * DIM).view(FRAMES, DIM) / 32


def name_clips(start: int, end: int) -> list[str]:
    return [f"clip-{number:04d}" for number in range(start, end)]


def assert_whole(path: Path, ids: list[str]) -> None:
    """The store opens, holds exactly these clips, each of them whole, and nothing unfinished lies about."""
    store = FeatureStore.open(path)
    assert store.ids == sorted(ids) and len(store) == len(ids)
    assert torch.equal(store.read(ids), features_of(ids).half().float())
    shards, parts = (
        {file.stem for file in (path / kind).iterdir()} for kind in ("shards", "index")
    )
    assert shards == parts - {"summary"}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = make_store(tmp_path / "store")
    store.append(name_clips(0, 5), features_of(name_clips(0, 5)))
    store.append(name_clips(5, 8), features_of(name_clips(5, 8)))
    return store


def test_a_store_says_what_it_holds(store):
    assert repr(store).startswith(f"FeatureStore({store.path}: 8 clips of {FRAMES} x {DIM}, ")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_reads_give_what_was_appended_in_the_order_asked(tmp_path_factory, sizes, data):
    store = make_store(tmp_path_factory.mktemp("store") / "store")
    x = torch.randn(sum(sizes), FRAMES, DIM, generator=torch.Generator().manual_seed(sum(sizes)))
    ids = data.draw(st.permutations(name_clips(0, sum(sizes))))
    for start, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes, strict=True):
        store.append(ids[start : start + size], x[start : start + size])
    asked = data.draw(st.lists(st.sampled_from(range(len(ids))), max_size=12))
    for reader in (store, FeatureStore.open(store.path)):
        assert torch.equal(reader.read([ids[i] for i in asked]), x[asked].half().float())
        assert torch.equal(
            reader.read(), x[sorted(range(len(ids)), key=ids.__getitem__)].half().float()
        )


def test_what_a_store_says_of_itself(store):
    reopened = FeatureStore.open(str(store.path))
    expected = (FRAMES, DIM, 8, DESCRIPTION)
    assert (reopened.frames, reopened.dim, len(reopened), reopened.description) == expected
    assert "clip-0003" in reopened and "clip-0009" not in reopened
    assert store.read([]).shape == (0, FRAMES, DIM) and store.read().dtype == torch.float32
    header = json.loads((store.path / "store.json").read_text())
    assert header["lift"]
    assert header["description"]["weights_hash"] == "0"
    assert header["frames"] == FRAMES
    part = pq.read_table(next((store.path / "index").iterdir())).to_pydict()
    expected = {"clip_id", "shard", "row", *ClipSource._fields}
    assert set(part) == expected


def test_ids_do_not_depend_on_who_wrote_first(tmp_path):
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        store = make_store(tmp_path / name)
        for number in order:
            store.append([f"clip-{number}"], features_of([f"clip-{number}"]))
    a, b = FeatureStore.open(tmp_path / "a"), FeatureStore.open(tmp_path / "b")
    assert a.ids == b.ids and torch.equal(a.read(), b.read())


@pytest.mark.parametrize(
    "ids, features, message",
    [
        (["clip-0001"], features_of(["clip-0001"]), "clip-0001"),
        (["clip-0100", "clip-0100"], torch.zeros(2, FRAMES, DIM), "clip-0100"),
        (["clip-0100"], torch.zeros(1, FRAMES + 1, DIM), "expected features"),
        (["clip-0100"], torch.zeros(2, FRAMES, DIM), "expected features"),
        ([], torch.zeros(0, FRAMES, DIM), "expected features"),
        ([7], torch.zeros(1, FRAMES, DIM), "text"),
        (["\udce9"], torch.zeros(1, FRAMES, DIM), "text that UTF-8 can hold"),
        (
            ["good", "bad"],
            torch.stack([torch.zeros(FRAMES, DIM), torch.full((FRAMES, DIM), torch.nan)]),
            ": bad$",
        ),
        (
            ["good", "bad"],
            torch.stack([torch.zeros(FRAMES, DIM), torch.full((FRAMES, DIM), -torch.inf)]),
            ": bad$",
        ),
        (
            ["good", "bad"],
            torch.stack([torch.full((FRAMES, DIM), 65504.0), torch.full((FRAMES, DIM), 7e4)]),
            "65504.*: bad$",
        ),
    ],
)
def test_what_may_not_be_stored_is_refused_and_leaves_no_trace(store, ids, features, message):
    with pytest.raises(StoreError, match=message):
        store.append(ids, features)
    assert_whole(store.path, name_clips(0, 8))


def test_a_clip_that_another_writer_has_stored_is_refused(store):
    other = FeatureStore.open(store.path)
    other.append(["clip-0020"], features_of(["clip-0020"]))
    with pytest.raises(StoreError, match="clip-0020"):
        store.append(["clip-0021", "clip-0020"], features_of(["clip-0021", "clip-0020"]))
    store.append(["clip-0021"], features_of(["clip-0021"]))
    assert_whole(store.path, [*name_clips(0, 8), "clip-0020", "clip-0021"])
    other.refresh()
    assert other.ids == store.ids


def append_some(path: Path, numbers: list[int]) -> None:
    store = FeatureStore.open(path)
    for number in numbers:
        store.append([f"clip-{number:04d}"], features_of([f"clip-{number:04d}"]))


def test_a_temporary_file_that_another_writer_renames_during_the_sweep_is_no_fault(
    tmp_path, monkeypatch
):
    store, ids = make_store(tmp_path / "store"), name_clips(0, 3)
    monkeypatch.setattr(
        Path, "rglob", lambda folder, pattern: iter([folder / "index" / ".gone.part"])
    )
    store.append(ids, features_of(ids))
    assert store.ids == ids


def test_several_processes_append_to_one_store(tmp_path):
    make_store(tmp_path / "store")
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(
            pool.map(
                append_some, [tmp_path / "store"] * 4, [list(range(n, 80, 4)) for n in range(4)]
            )
        )
    assert_whole(tmp_path / "store", name_clips(0, 80))


def test_the_same_clip_committed_twice_counts_once(store):
    """Two writers may commit the same clip at the same instant: no append can see that in advance."""
    for kind, suffix in (("shards", "safetensors"), ("index", "parquet")):
        first = sorted((store.path / kind).iterdir())[0]
        (store.path / kind / f"000009-other.{suffix}").write_bytes(first.read_bytes())
    assert_whole(store.path, name_clips(0, 8))


# What a clip was made of


def test_a_source_is_remembered_and_may_be_learned_later(store):
    source = ClipSource("a.mp4", 1.5, None, 1234, 10**18 + 1, "abc")
    store.append(
        ["clip-0010", "clip-0011"],
        features_of(["clip-0010", "clip-0011"]),
        [source, source._replace(digest=None)],
    )
    assert FeatureStore.open(store.path).source("clip-0010") == source
    assert store.source("clip-0000") is None
    store.record_sources({"clip-0000": source._replace(path="b.mp4"), "clip-0011": source})
    for reader in (store, FeatureStore.open(store.path)):
        assert reader.source("clip-0000").path == "b.mp4" and reader.source("clip-0011") == source
        assert reader.ids == [*name_clips(0, 8), "clip-0010", "clip-0011"]
        assert torch.equal(reader.read(), features_of(reader.ids).half().float())
    with pytest.raises(KeyError, match="clip-0099"):
        store.record_sources({"clip-0099": source})


def test_clips_with_replaced_frames_are_marked_and_old_stores_have_none(store):
    ids = ["clip-0010", "clip-0011"]
    store.append(ids, features_of(ids), [ClipSource("a.mp4", replaced=3), ClipSource("b.mp4")])
    assert store.damaged == FeatureStore.open(store.path).damaged == {"clip-0010": 3}
    for part in (store.path / "index").iterdir():
        pq.write_table(pq.read_table(part).drop_columns(["replaced"]), part)
    old = FeatureStore.open(store.path)
    assert old.damaged == {} and old.source("clip-0010") == ClipSource("a.mp4")


def test_a_withdrawn_clip_is_gone_for_every_reader_until_it_is_made_anew(store):
    reader = FeatureStore.open(store.path)
    ids = [clip for clip in name_clips(0, 8) if clip != "clip-0003"]
    store.withdraw(["clip-0003"])
    reader.refresh()
    for each in (store, reader, FeatureStore.open(store.path)):
        assert each.ids == ids and len(each) == 7 and "clip-0003" not in each
        with pytest.raises(KeyError, match="clip-0003"):
            each.read(["clip-0003"])
    with pytest.raises(KeyError, match="clip-0003"):
        store.withdraw(["clip-0003"])
    store.append(["clip-0003"], features_of(["clip-0003"]) + 1)
    reader.refresh()
    for each in (store, reader, FeatureStore.open(store.path)):
        assert each.ids == name_clips(0, 8)
        assert torch.equal(
            each.read(["clip-0003"]), (features_of(["clip-0003"]) + 1).half().float()
        )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("aw"), st.integers(0, 3), st.booleans()), max_size=14))
def test_the_last_word_on_a_clip_counts_whoever_says_it_and_reads_it(tmp_path_factory, steps):
    """Two writers append (with a new value) and withdraw in turn; a third reads all the while, a fourth in the end."""
    path = tmp_path_factory.mktemp("store") / "store"
    writers, reader, truth = (make_store(path), make_store(path)), make_store(path), {}
    for value, (kind, number, which) in enumerate(steps):
        clip_id, writer = f"clip-{number}", writers[which]
        if kind == "a" and clip_id not in truth:
            writer.append([clip_id], torch.full((1, FRAMES, DIM), float(value)))
            truth[clip_id] = value
        elif kind == "w" and clip_id in truth:
            writer.withdraw([clip_id])
            del truth[clip_id]
        reader.refresh()
        assert {clip_id: reader.read([clip_id])[0, 0, 0].item() for clip_id in reader.ids} == truth
    late = make_store(path)
    assert {clip_id: late.read([clip_id])[0, 0, 0].item() for clip_id in late.ids} == truth


def test_a_part_that_a_reader_sees_late_does_not_win_over_a_later_one(store):
    """Two machines, and a disk that shows their files in another order than that of their names."""
    reader = FeatureStore.open(store.path)
    store.withdraw(["clip-0001"])
    hidden = max((store.path / "index").iterdir())
    aside = hidden.with_suffix(".aside")
    FeatureStore.open(store.path).append(["clip-0001"], features_of(["clip-0001"]) + 1)
    hidden.rename(aside)
    reader.refresh()
    aside.rename(hidden)
    reader.refresh()
    assert torch.equal(reader.read(["clip-0001"]), (features_of(["clip-0001"]) + 1).half().float())


def test_a_damaged_shard_may_be_deleted_though_its_clips_were_named_again(store):
    store.record_sources({clip_id: ClipSource("v.mp4") for clip_id in name_clips(0, 8)})
    name = min((store.path / "shards").iterdir()).stem
    (store.path / "shards" / f"{name}.safetensors").unlink()
    (store.path / "index" / f"{name}.parquet").unlink()
    assert FeatureStore.open(store.path).ids == name_clips(5, 8)


# The summary of the index


@pytest.fixture
def many(tmp_path) -> FeatureStore:
    """40 parts: more than are left without a summary; one clip was withdrawn, one made again."""
    store = make_store(tmp_path / "many")
    for ids in ([f"clip-{n:04d}"] for n in range(38)):
        store.append(ids, features_of(ids), [ClipSource(f"{ids[0]}.mp4", size=7)])
    store.withdraw(["clip-0003", "clip-0004"])
    store.append(["clip-0004"], features_of(["clip-0004"]))
    return store


def assert_same_index(one: FeatureStore, other: FeatureStore) -> None:
    assert one.ids == other.ids and torch.equal(one.read(), other.read())
    assert [one.source(name) for name in one.ids] == [other.source(name) for name in other.ids]


def test_a_summary_holds_what_the_parts_hold(many, monkeypatch):
    read, count = store_module._read_part, []
    monkeypatch.setattr(store_module, "_read_part", lambda path: count.append(path) or read(path))
    summed = FeatureStore.open(many.path)
    assert len(count) < 20, "the parts were read one by one"
    (many.path / "index" / "summary").unlink()
    by_parts = FeatureStore.open(many.path)
    assert len(count) >= 40
    assert_same_index(summed, by_parts)
    assert "clip-0003" not in summed and summed.source("clip-0004") is None
    assert summed.source("clip-0005").size == 7 and len(summed) == 37


def test_all_summaries_together_cost_a_few_times_the_last_one(tmp_path, monkeypatch):
    write, sizes = FeatureStore._write_summary, []
    monkeypatch.setattr(
        FeatureStore, "_write_summary", lambda self: sizes.append(len(self)) or write(self)
    )
    store = make_store(tmp_path / "many")
    for ids in ([f"clip-{n:04d}"] for n in range(200)):
        store.append(ids, features_of(ids))
    assert len(sizes) > 5 and sum(sizes) <= 5 * len(store)


def test_opening_a_store_sums_up_what_its_writer_left(many):
    (many.path / "index" / "summary").unlink()
    FeatureStore.open(many.path)
    assert (many.path / "index" / "summary").exists()


def test_damaged_clips_are_known_to_a_reader_of_the_summary(many):
    many.append(["clip-0100"], features_of(["clip-0100"]), [ClipSource("a.mp4", replaced=3)])
    for name in map("clip-02{:02d}".format, range(16)):  # so many parts make a new summary
        many.append([name], features_of([name]))
    assert FeatureStore.open(many.path).damaged == {"clip-0100": 3}


def test_a_damaged_summary_costs_time_alone(many):
    path = many.path / "index" / "summary"
    before = FeatureStore.open(many.path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    assert_same_index(FeatureStore.open(many.path), before)
    path.write_text("no summary")
    assert_same_index(FeatureStore.open(many.path), before)


def test_a_part_that_was_deleted_is_in_no_summary(many):
    part = sorted((many.path / "index").glob("*.parquet"))[0]
    part.unlink()
    store = FeatureStore.open(many.path)
    assert "clip-0000" not in store and len(store) == 36


# What a kill leaves

APPEND_FOR_EVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import features_of, make_store, name_clips
store = make_store(Path({path!r}))
for start in range(0, 10**6, 10):
    store.append(name_clips(start, start + 10), features_of(name_clips(start, start + 10)))
    print("committed", flush=True)
"""


def test_a_kill_at_any_instant_leaves_whole_shards(tmp_path):
    code = APPEND_FOR_EVER.format(tests=str(Path(__file__).parent), path=str(tmp_path / "store"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        told = [writer.stdout.readline() for _ in range(20)]
        time.sleep(0.0137)
        writer.send_signal(signal.SIGKILL)
    store = FeatureStore.open(tmp_path / "store")
    assert len(store) >= 10 * len(told) and len(store) % 10 == 0
    assert torch.equal(store.read(), features_of(store.ids).half().float())
    store.append(["next-9999"], features_of(["next-9999"]))
    assert "next-9999" in FeatureStore.open(tmp_path / "store")


def leave_unfinished(store: FeatureStore, age: float) -> list[Path]:
    """What killed writers leave: a shard without an index part, and files half written."""
    names = (
        "shards/000002-dead.safetensors",
        "shards/.000003-x.safetensors.0.part",
        "index/.000003-x.parquet.0.part",
    )
    paths = [store.path / name for name in (*names, ".store.json.0.part")]
    for path in paths:
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    return paths


def test_unfinished_files_are_no_part_of_the_store_and_swept_when_old(store):
    old = leave_unfinished(store, age=7200)
    writer = FeatureStore.open(store.path)
    assert writer.ids == name_clips(0, 8) and all(path.exists() for path in old), (
        "a reader deletes nothing"
    )
    writer.append(["clip-0008"], features_of(["clip-0008"]))
    assert not any(path.exists() for path in old)
    assert_whole(store.path, name_clips(0, 9))


def test_unfinished_files_of_a_writer_that_may_live_stay(store):
    young = leave_unfinished(store, age=60)
    FeatureStore.open(store.path).append(["clip-0008"], features_of(["clip-0008"]))
    assert all(path.exists() for path in young)


# Disks that refuse


def fail_at_call(
    monkeypatch, owner, name: str, number: int, fault: BaseException, after: bool = False
) -> None:
    """Let the call `number` (from 1) of a function raise, before or after it has done its work."""
    original, calls = getattr(owner, name), []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == number and not after:
            raise fault
        result = original(*arguments, **options)
        if len(calls) == number:
            raise fault
        return result

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    "owner, name, number",
    [
        (store_module, "save_file", 1),
        (store_module.pq, "write_table", 1),
        (os, "fsync", 1),
        (os, "fsync", 2),
        (os, "fsync", 3),
        (os, "replace", 1),
        (os, "replace", 2),
    ],
)
def test_a_full_disk_leaves_all_that_was_committed(store, monkeypatch, owner, name, number):
    with monkeypatch.context() as patch:
        fail_at_call(patch, owner, name, number, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StoreError, match="No space left on device.*intact"):
            store.append(["clip-0008"], features_of(["clip-0008"]))
    assert_whole(store.path, name_clips(0, 8))
    store.append(["clip-0008"], features_of(["clip-0008"]))
    assert_whole(store.path, name_clips(0, 9))


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import features_of, make_store, name_clips
from lift.store import StoreError
store = make_store(Path({path!r}))
store.append(name_clips(0, 5), features_of(name_clips(0, 5)))
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    store.append(name_clips(5, 500), features_of(name_clips(5, 500)))
except StoreError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_bytes(tmp_path):
    code = FILL_THE_DISK.format(tests=str(Path(__file__).parent), path=str(tmp_path / "store"))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "could not be written" in result.stdout
    assert "too large" in result.stdout
    assert "intact" in result.stdout
    assert_whole(tmp_path / "store", name_clips(0, 5))


@pytest.mark.parametrize("number, committed", [(1, False), (2, True)])
def test_an_interrupt_beside_the_commit_keeps_shard_and_index_in_step(
    store, monkeypatch, number, committed
):
    with monkeypatch.context() as patch:
        fail_at_call(patch, os, "replace", number, KeyboardInterrupt(), after=True)
        with pytest.raises(KeyboardInterrupt):
            store.append(["clip-0008"], features_of(["clip-0008"]))
    assert_whole(store.path, name_clips(0, 9 if committed else 8))


# Damage is named


def damage(store: FeatureStore, kind: str) -> Path:
    path = sorted((store.path / kind).iterdir())[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_truncated_shard_is_named_and_the_others_still_read(store):
    path = damage(store, "shards")
    with pytest.raises(StoreError, match=path.name):
        store.read(["clip-0000"])
    assert torch.equal(store.read(["clip-0007"]), features_of(["clip-0007"]).half().float())
    path.unlink()
    with pytest.raises(StoreError, match=path.name):
        store.read(["clip-0000"])


def test_a_truncated_index_part_is_named_and_its_remedy_works(store):
    path = damage(store, "index")
    with pytest.raises(StoreError, match=f"{path.name}.*delete it"):
        FeatureStore.open(store.path)
    path.unlink()
    assert FeatureStore.open(store.path).ids == name_clips(5, 8)


@pytest.mark.parametrize("name", ["store.json", "failures.json"])
@pytest.mark.parametrize("content", ['{"frames": ', "[]", "{}"])
def test_a_damaged_text_file_is_named(store, name, content):
    (store.path / name).write_text(content)
    if (name, content) == ("failures.json", "{}"):
        assert FeatureStore.open(store.path).failures == {}
        return
    with pytest.raises(StoreError, match=name):
        _ = FeatureStore.open(store.path).failures


def test_no_store_is_no_store(tmp_path, store):
    with pytest.raises(FileNotFoundError, match="store.json"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="already"):
        FeatureStore.create(store.path, DESCRIPTION, FRAMES, DIM)


# Features of something else


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"description": {**DESCRIPTION, "name": "another"}},
            "name: 'made up' in the store, 'another' asked for",
        ),
        ({"description": {**DESCRIPTION, "weights_hash": "1"}}, "weights_hash"),
        ({"description": {**DESCRIPTION, "preprocessing": {"mean": (0.4, 0.5)}}}, "preprocessing"),
        ({"description": {"name": "made up", "weights_hash": "0"}}, "preprocessing"),
        ({"frames": 8}, "frames: 4 in the store, 8 asked for"),
        ({"dim": 7}, "dim"),
        ({"sampling": {"rule": "random"}}, "sampling"),
    ],
)
def test_other_features_are_refused(tmp_path, changes, message):
    make_store(tmp_path / "store", sampling={"rule": "even"})
    with pytest.raises(StoreMismatchError, match=message):
        make_store(tmp_path / "store", **changes)


def test_equal_weights_from_elsewhere_and_tuples_are_no_mismatch(store):
    description = {**DESCRIPTION, "weights": "there", "preprocessing": {"mean": (0.5, 0.5)}}
    assert len(make_store(store.path, description=description)) == 8
    assert len(make_store(store.path, sampling={"rule": "even"})) == 8, (
        "a store that records no sampling compares none"
    )


# Reading


def test_ids_that_are_absent_are_named(store):
    for read in (store.read, store.statistics):
        with pytest.raises(KeyError, match="2 clips.*clip-0098"):
            read(["clip-0001", "clip-0098", "clip-0099"])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.floats(-100, 100), st.integers(0, 2**31))
def test_statistics_are_those_of_the_stored_features(
    tmp_path_factory, clips, batch_size, offset, seed
):
    store = make_store(tmp_path_factory.mktemp("store") / "store")
    ids = name_clips(0, clips)
    store.append(
        ids, offset + torch.randn(clips, FRAMES, DIM, generator=torch.Generator().manual_seed(seed))
    )
    x = store.read().double().flatten(0, 1)  # (clips * FRAMES, DIM)
    mean, std = store.statistics(batch_size=batch_size)
    torch.testing.assert_close(mean, x.mean(0).float())
    torch.testing.assert_close(std, x.std(0, correction=0).float(), atol=1e-6, rtol=1e-4)
    assert mean.dtype == torch.float32 and mean.shape == std.shape == (DIM,)


def test_statistics_of_some_clips_in_any_order(store):
    some = ["clip-0007", "clip-0001", "clip-0002"]
    mean, std = store.statistics(some)
    torch.testing.assert_close(mean, features_of(some).mean((0, 1)))
    assert torch.equal(torch.stack([mean, std]), torch.stack(store.statistics(iter(sorted(some)))))
    with pytest.raises(StoreError, match="at least one"):
        store.statistics([])


def test_a_store_travels_to_another_process(store):
    assert torch.equal(pickle.loads(pickle.dumps(store)).read(), store.read())


def test_2000_random_clips_of_20000_open_each_shard_once_and_each_part_of_the_index_once(
    tmp_path, monkeypatch
):
    """Small shards of 64 clips, the hardest case: that is what makes it quick."""
    store = FeatureStore.create(tmp_path / "store", DESCRIPTION, frames=16, dim=8)
    for start in range(0, 20_000, 64):
        ids = name_clips(start, min(start + 64, 20_000))
        store.append(ids, torch.zeros(len(ids), 16, 8))
    wanted = [
        f"clip-{n:04d}"
        for n in torch.randperm(20_000, generator=torch.Generator().manual_seed(0))[:2000].tolist()
    ]
    opened = {"safe_open": [], "_read_part": []}
    for name, calls in opened.items():
        original = getattr(store_module, name)
        monkeypatch.setattr(
            store_module,
            name,
            lambda path, *a, f=original, c=calls, **o: c.append(path) or f(path, *a, **o),
        )
    assert FeatureStore.open(store.path).read(wanted).shape == (2000, 16, 8)
    shards = len(list((store.path / "shards").iterdir()))
    for calls in opened.values():
        assert len(calls) == len(set(calls)) <= shards


# Failures


def test_failures_are_remembered_until_the_clip_succeeds(store):
    store.record_failures({"clip-0100": "no such file", "clip-0101": "truncated"})
    store.record_failures({"clip-0102": "empty"})
    store.record_failures({})
    reopened = FeatureStore.open(store.path)
    assert reopened.failures == {
        "clip-0100": "no such file",
        "clip-0101": "truncated",
        "clip-0102": "empty",
    }
    reopened.append(["clip-0101"], features_of(["clip-0101"]))
    assert set(reopened.failures) == {"clip-0100", "clip-0102"}
    reopened.record_failures({"clip-0100": "still no such file"})
    assert FeatureStore.open(store.path).failures == {
        "clip-0100": "still no such file",
        "clip-0102": "empty",
    }


def test_a_full_disk_keeps_the_failures_known_before(store, monkeypatch):
    store.record_failures({"clip-0100": "truncated"})
    fail_at_call(monkeypatch, os, "replace", 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StoreError, match="failures.json.*No space"):
        store.record_failures({"clip-0101": "truncated"})
    assert FeatureStore.open(store.path).failures == {"clip-0100": "truncated"}


def test_batches_hold_every_clip_in_its_order(tmp_path):
    store, ids = make_store(tmp_path / "store"), name_clips(0, 7)
    store.append(ids, features_of(ids))
    parts = list(store.batches(ids[::-1], batch_size=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat(parts), store.read(ids[::-1]))


def test_a_fingerprint_is_of_clips_their_order_and_their_features(tmp_path):
    ids = name_clips(0, 7)
    same, again, other = (make_store(tmp_path / name) for name in ("same", "again", "other"))
    for store, factor in ((same, 1), (again, 1), (other, 2)):
        store.append(ids, factor * features_of(ids))
    assert same.fingerprint(ids) == again.fingerprint(ids) != other.fingerprint(ids)
    assert len({same.fingerprint(some) for some in (ids, ids[::-1], ids[:6])}) == 3


def test_a_view_of_some_frames(tmp_path):
    x = torch.randn(3, 5, 4).half().float()
    store = FeatureStore.create(tmp_path / "store", {"name": "any"}, 5, 4)
    store.append(["a", "b", "c"], x)
    view = StoreView(store, lambda x: x[:, [0, 2, 4], :3], {"name": "a part"})
    assert (view.frames, view.dim, view.ids) == (3, 3, ["a", "b", "c"])
    assert view.description == {"name": "a part", "dim": 3}
    assert torch.equal(view.read(["c", "a"]), x[[2, 0]][:, [0, 2, 4], :3])
    assert torch.equal(view.statistics()[0], x[:, [0, 2, 4], :3].mean((0, 1)))
    assert view.fingerprint(["a"]) != store.fingerprint(["a"])
    assert StoreView(store, lambda x: x).description["name"] == "any"
