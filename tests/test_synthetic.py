"""The rendered benchmark: classes differ in order alone, a seed gives the same bytes, a stopped run goes on."""

import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lift.data import scenes, synthetic
from lift.data.clips import read_clips
from lift.data.synthetic import (
    DIFFICULTIES,
    FRAMES,
    GROUPS,
    amount_path,
    audit_chance,
    render_clip,
    synthesise,
)
from lift.video import VideoError, read_frames, sample_indices, write_video

SMALL = {"clips": 2, "test_clips": 1, "size": 32, "workers": 1, "progress": False}
SMALL["groups"] = ["lamp_on_off", "ball_near_far"]


# --- clips ---


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_renders_and_moves(group):
    frames = render_clip(group, 1, seed=0, split="train", size=32)
    assert frames.shape == (FRAMES, 32, 32, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, render_clip(group, 1, seed=0, split="train", size=32))
    still = np.abs(frames[1].astype(float) - frames[0]).mean()
    assert np.abs(frames[-1].astype(float) - frames[0]).mean() > still, (
        "the action changes more than the noise does"
    )


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("split", scenes.REGIONS)
def test_every_difficulty_and_split_renders(difficulty, split):
    expected = (FRAMES, 32, 32, 3)
    assert render_clip("door_open_close", 0, 3, split, difficulty, size=32).shape == expected


def test_each_argument_draws_another_clip():
    clips = [
        render_clip("lamp_on_off", 1, 0, "train", size=32),
        render_clip("lamp_on_off", 1, 1, "train", size=32),
        render_clip("lamp_on_off", 1, (0, 1), "train", size=32),
        render_clip("lamp_on_off", 0, 0, "train", size=32)[::-1],
        render_clip("lamp_on_off", 1, 0, "validation", size=32),
        render_clip("lamp_on_off", 1, 0, "train", "hard", size=32),
    ]
    assert not any(np.array_equal(a, b) for a, b in combinations(clips, 2))


@pytest.mark.parametrize("group", ["door_open_close", "toy_right_left", "lamp_on_off"])
def test_the_signs_differ_in_order_alone(group, monkeypatch):
    """With the same draws, sign 0 is sign 1 played backwards, to the byte."""
    monkeypatch.setattr(synthetic, "_generator", lambda *_: np.random.default_rng(5))
    forward, reverse = (render_clip(group, sign, 0, "train", "hard", size=32) for sign in (1, 0))
    assert np.array_equal(reverse, forward[::-1])


def test_sign_one_is_the_verb_forward():
    for seed in range(5):
        opening, closing = (
            render_clip("lamp_on_off", sign, seed, "train", size=32) for sign in (1, 0)
        )
        assert opening[-3:].mean() > opening[:3].mean() and closing[-3:].mean() < closing[:3].mean()
    assert GROUPS["lamp_on_off"].label(1) == "switching a lamp on"
    assert GROUPS["lamp_on_off"].verb(0) == "switching off"


def test_groups_cover_what_the_paper_names():
    assert len(GROUPS) >= 12
    families = {group.family for group in GROUPS.values()}
    assert families == {"object state", "distance", "position", "count", "amount", "light"}
    labels = [group.label(sign) for group in GROUPS.values() for sign in (0, 1)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no_group", 1, 0, "train"), "unknown group 'no_group'; there is: door_open_close"),
        (("lamp_on_off", 2, 0, "train"), "unknown sign 2"),
        (("lamp_on_off", 1, 0, "dev"), "unknown split 'dev'"),
        (
            ("lamp_on_off", 1, 0, "train", "extreme"),
            "unknown difficulty 'extreme'; there is: easy, medium, hard",
        ),
        (("lamp_on_off", 1, 0, "train", "easy", 33), "size is 33"),
        (("lamp_on_off", 1, 0, "train", "easy", 16), "size is 16"),
    ],
)
def test_unknown_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        render_clip(*arguments)


# --- what could leak ---


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_amounts_rise_and_have_no_other_arrow(difficulty):
    paths = np.stack(
        [amount_path(np.random.default_rng(i), DIFFICULTIES[difficulty]) for i in range(3000)]
    )
    assert (np.diff(paths) >= 0).all() and (paths[:, -1] > paths[:, 0]).all()
    assert paths.min() >= 0 and paths.max() <= 1 + 1e-9
    mirrored = 1 - paths[:, ::-1]
    assert np.abs(paths.mean(0) - mirrored.mean(0)).max() < 0.02
    assert np.abs(paths.std(0) - mirrored.std(0)).max() < 0.02


def test_splits_share_no_region_of_a_photograph():
    for a, b in combinations(scenes.REGIONS.values(), 2):
        assert a[1] < b[0] or b[1] < a[0]
    sides = [
        max(scenes.photograph("skimage/data/coffee.png", split).size) for split in scenes.REGIONS
    ]
    assert min(sides) >= 288, "a region is enlarged to what the stage cuts from"


def test_sampled_frames_are_their_own_mirror():
    indices = sample_indices(FRAMES, 16)
    assert np.array_equal(FRAMES - 1 - indices[::-1], indices)


def test_encoding_does_not_know_the_direction_of_time(tmp_path):
    frames = render_clip("drawer_open_close", 1, 0, "train", size=64)
    decoded = []
    for name, clip in (("forward", frames), ("backward", frames[::-1])):
        write_video(
            tmp_path / f"{name}.mp4", clip, frames_per_second=12, options=synthetic.ENCODING
        )
        decoded.append(read_frames(tmp_path / f"{name}.mp4", range(FRAMES)))
    assert np.array_equal(decoded[0], decoded[1][::-1])
    assert np.abs(decoded[0].astype(float) - frames).mean() < 10


def test_a_missing_package_says_which_extra_brings_it(monkeypatch):
    scenes.photograph.cache_clear()
    monkeypatch.setattr(scenes, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"skimage.*lift\[plot\]"):
        scenes.photograph("skimage/data/coffee.png", "train")


def test_optional_packages_are_not_imported():
    code = "import sys, lift.data.synthetic; print({'skimage', 'matplotlib', 'lightning'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- files ---


def test_table_and_files(tmp_path):
    table = synthesise(tmp_path / "a", **SMALL)
    first, second = table.clip_id.tolist()[:2]
    assert re.fullmatch(r"lamp_on_off-[0-9a-f]{4}-train-1-0000", first)
    assert second == first[:-1] + "1"
    assert first not in set(synthesise(tmp_path / "seed", **{**SMALL, "seed": 7}).clip_id), (
        "other pixels, another id"
    )
    assert (
        table.groupby(["group", "split", "chiral_label"]).size().unstack(1).to_numpy().tolist()
        == [[1, 2]] * 4
    )
    assert all((tmp_path / "a" / path).stat().st_size > 0 for path in table.path)
    assert not any("/" == path[0] for path in table.path)
    pd.testing.assert_frame_equal(
        read_clips(tmp_path / "a" / "clips.csv"), table, check_dtype=False
    )
    assert len(list((tmp_path / "a" / "videos").iterdir())) == len(table)


def test_the_number_of_workers_changes_no_byte(tmp_path):
    tables = [
        synthesise(tmp_path / str(n), **SMALL | {"workers": n, "validation_clips": 1})
        for n in (1, 2)
    ]
    pd.testing.assert_frame_equal(*tables)
    assert set(tables[0].split) == {"train", "validation", "test"}
    for path in tables[0].path:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes()


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    whole = synthesise(tmp_path / "whole", **SMALL)
    written = []

    def disk_that_fills(path, *arguments, **options):
        if len(written) == 3:
            raise VideoError(path, "No space left on device")
        written.append(path)
        return write_video(path, *arguments, **options)

    monkeypatch.setattr(synthetic, "write_video", disk_that_fills)
    with pytest.raises(OSError, match="No space left.*finished videos are kept") as caught:
        synthesise(tmp_path / "part", **SMALL)
    assert str(tmp_path / "part") in str(caught.value)
    assert not (tmp_path / "part" / "clips.csv").exists()
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in written}
    assert len(before) == 3
    synthesise(tmp_path / "part", **SMALL)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), (
        "finished videos are kept"
    )
    for path in whole.path:
        assert (tmp_path / "part" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_more_clips_keep_the_first(tmp_path):
    few = synthesise(tmp_path, **SMALL)
    times = {path: (tmp_path / path).stat().st_mtime_ns for path in few.path}
    more = synthesise(tmp_path, **SMALL | {"clips": 3})
    assert set(few.clip_id) < set(more.clip_id)
    assert all((tmp_path / path).stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize("change", [{"seed": 1}, {"difficulty": "hard"}, {"size": 34}])
def test_other_settings_are_refused(tmp_path, change):
    synthesise(tmp_path, **SMALL)
    with pytest.raises(ValueError, match=f"synthetic.json.*{next(iter(change))}.*another folder"):
        synthesise(tmp_path, **SMALL | change)


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(ValueError, match="synthetic.json: is no JSON"):
        synthesise(tmp_path, **SMALL)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write here.*choose another folder.*file"):
        synthesise(tmp_path / "file" / "out", **SMALL)


@pytest.mark.parametrize(
    "change", [{"clips": 0}, {"test_clips": 0}, {"seed": -1}, {"workers": 0}, {"groups": []}]
)
def test_counts_are_checked_before_anything_is_written(tmp_path, change):
    with pytest.raises(ValueError, match="1 or more"):
        synthesise(tmp_path / "out", **SMALL | change)
    assert not (tmp_path / "out").exists()


# --- the audit ---


def table_of(groups: int = 5, train: int = 20, validation: int = 15) -> pd.DataFrame:
    return synthetic.plan_clips({"train": train, "validation": validation}, list(GROUPS)[:groups])


def features_of(table: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).normal(size=(len(table), 8, 12))
    return noise, table.chiral_label.to_numpy(float)[:, None]


def test_a_fair_set_passes():
    table = table_of()
    failed = sum(
        not audit_chance(features_of(table, seed)[0], table, seed).at_chance.all()
        for seed in range(20)
    )
    assert failed <= 3, "5 in 100 may fail"


def test_order_alone_is_no_leak():
    table = table_of()
    noise, sign = features_of(table, 0)
    ramp = np.linspace(-1, 1, 8)
    moving = 0.3 * noise + 3 * ((2 * sign - 1) * ramp)[:, :, None]
    assert audit_chance(moving, table).at_chance.all()


@pytest.mark.parametrize(
    ("leak", "statistic"),
    [
        (lambda noise, sign: noise + 0.5 * sign[:, None], "time mean"),
        (lambda noise, sign: noise * (1 + 0.5 * sign[:, None]), "time spread"),
        (lambda noise, sign: np.where(sign[:, None] == 1, np.abs(noise), noise), "random frame"),
    ],
    ids=["brightness", "noise", "distribution"],
)
def test_a_leak_is_found(leak, statistic):
    table = table_of()
    audit = audit_chance(leak(*features_of(table, 0)), table)
    found = audit[~audit.at_chance]
    assert ("all groups", statistic) in set(zip(found.group, found.statistic, strict=True))
    assert found.low.min() > 50


def test_a_leak_in_one_group_is_named():
    table = table_of()
    noise, sign = features_of(table, 0)
    only = table.group.eq("drawer_open_close").to_numpy()[:, None, None]
    audit = audit_chance(noise + 3 * only * sign[:, None], table)
    assert "drawer_open_close" in set(audit.group[~audit.at_chance])
    assert set(audit.group[~audit.at_chance]) <= {"drawer_open_close", "all groups"}


def test_a_leaky_benchmark_fails_the_audit(tmp_path):
    """Clips of sign 0 that are filmed with a less steady camera, encoded and decoded."""
    groups = ["door_open_close", "marble_put_take", "glass_fill_empty"]
    arguments = SMALL | {"clips": 6, "test_clips": 6, "groups": groups, "size": 48}
    steady = synthesise(tmp_path / "steady", **arguments)
    shaky = synthesise(tmp_path / "shaky", **arguments | {"difficulty": "hard"})
    path = np.where(steady.chiral_label.eq(1), "steady/" + steady.path, "shaky/" + shaky.path)

    def small(name: str) -> np.ndarray:
        frames = read_frames(tmp_path / name, sample_indices(FRAMES, 16))
        return frames.reshape(16, 8, 6, 8, 6, 3).mean((2, 4)).reshape(16, -1) / 255

    fair = audit_chance(np.stack([small("steady/" + name) for name in steady.path]), steady)
    leaky = audit_chance(np.stack([small(name) for name in path]), steady)
    assert fair.at_chance.all() and not leaky.at_chance.all()


def test_audit_refuses_what_it_cannot_probe():
    table = table_of(1)
    features = np.zeros((len(table), 8, 3))
    with pytest.raises(ValueError, match=r"\(N, T, D\)"):
        audit_chance(features[0], table)
    with pytest.raises(ValueError, match="door_open_close needs both signs"):
        audit_chance(features, table.assign(chiral_label=1))
    with pytest.raises(ValueError, match="door_open_close needs both signs in train, and test"):
        audit_chance(features, table.assign(split="train"))
