"""The diagnosis: shares that are shares, a probe that cannot cheat, verdicts that controls earn."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift.diagnosis import (
    CHANGES,
    DiagnosisError,
    VideoClips,
    clips_for,
    diagnose,
    diagnose_clips,
    diagnose_named,
    diagnose_videos,
    frame_embedder,
    frames_needed,
    odd_share,
    tell_apart,
)
from lift.embedding import EmbeddingError, load_model
from lift.io import InputError
from lift.store import FeatureStore
from lift.video import VideoError, write_video

QUICK = {"bootstrap": 100, "permutations": 60}


def walks(count: int, length: int = 16, drift: float = 2.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Random walks `(T, 6)` with a common drift: they have an arrow of time."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(count, length, 6)).cumsum(1) / 4
    steps += np.linspace(0, drift, length)[None, :, None] + rng.normal(size=(count, 1, 6))
    return {f"walk {n}": walk for n, walk in enumerate(steps)}


def mean(x):
    return x.mean(1)


def change(x):
    return x[:, -1] - x[:, 0]


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 5))
def test_a_change_takes_as_many_frames_as_asked_and_none_that_is_not_there(length, frames, seed):
    taken = {
        name: take(length, frames, np.random.default_rng(seed)) for name, take in CHANGES.items()
    }
    for name, indices in taken.items():
        assert indices.shape == (frames,) and indices.min() >= 0 and indices.max() < length
        if length >= frames_needed(name, frames) and name != "sped up":
            assert len(set(indices.tolist())) == frames
    assert (taken["reversed"][::-1] == taken["unchanged"]).all()
    assert sorted(taken["shuffled"]) == sorted(taken["unchanged"])
    if length >= frames:
        assert (taken["shuffled"] != taken["unchanged"]).any()
    assert taken["first half"].max() <= (length - 1) // 2 or length == 1


def test_the_odd_share_is_0_for_even_1_for_odd_and_one_half_for_strangers():
    rng = np.random.default_rng(0)
    e, other = rng.normal(size=(2, 4000, 5)) + 3
    assert odd_share(e, e) == 0
    assert odd_share(e, -e) == 1
    assert odd_share(e, other) == pytest.approx(0.5, abs=0.02)


@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_the_two_parts_are_all_of_the_variance(seed, scale):
    rng = np.random.default_rng(seed)
    forward, changed = rng.normal(size=(2, 30, 4)) + rng.normal(size=4)
    odd = (((forward - changed) / 2) ** 2).sum(1).mean()
    total = np.concatenate([forward, changed]).var(0).sum()
    assert odd_share(forward, changed) == pytest.approx(odd / total)
    shifted = odd_share(scale * forward + 7, scale * changed + 7)
    assert shifted == pytest.approx(odd / total), "neither a shift nor a scale matters"


def test_what_has_no_share_and_no_probe_is_refused():
    same = np.ones((8, 3))
    with pytest.raises(DiagnosisError, match="no variance to share"):
        odd_share(same, same)
    with pytest.raises(DiagnosisError, match="of one shape"):
        odd_share(same, same[:4])
    with pytest.raises(DiagnosisError, match="NaN"):
        odd_share(same, same * np.nan)
    with pytest.raises(DiagnosisError, match="5 clips"):
        tell_apart(same, same, labels=list("aabbccdd"))
    with pytest.raises(DiagnosisError, match="3 labels for 8 clips"):
        tell_apart(same, same, labels=list("abc"))


def test_a_probe_of_equal_copies_is_exactly_at_chance_whatever_the_size():
    for size in (3, 400):
        e = np.random.default_rng(size).normal(size=(60, size)).astype(np.float32)
        scores, p = tell_apart(e, e.copy())
        assert (scores == 0.5).all() and p == 1


def test_the_probe_is_calibrated_where_there_is_nothing_to_find():
    rng = np.random.default_rng(0)
    p = [tell_apart(*rng.normal(size=(2, 30, 20)), permutations=50, seed=n)[1] for n in range(60)]
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) < 0.1) < 0.25


def test_a_clip_is_never_in_training_and_test_at_once():
    """Clips with a mark of their own and a random name for each copy: only a leak could be right."""
    rng = np.random.default_rng(0)
    marks = np.eye(80)
    forward, changed = marks + 0.1 * rng.normal(size=(2, 80, 80))
    assert abs(tell_apart(forward, changed)[0].mean() - 0.5) < 0.15


def test_labels_give_a_probe_each_and_small_labels_are_counted_out():
    clips = walks(63)
    sides = {name: walk if n % 2 else walk[::-1] for n, (name, walk) in enumerate(clips.items())}
    labels = {name: "up" if n % 2 else "down" for n, name in enumerate(sides)}
    labels |= {name: "rare" for name in list(sides)[:3]}
    found = diagnose(sides, change, (8,), labels, **QUICK)
    assert found.verdict == "knows"
    row = found.table.query("embedding == 'embedding' and change == 'reversed'").set_index(
        "measure"
    )
    assert row.loc["probe accuracy (%)", "clips"] == 60 and row.loc["cosine", "clips"] == 63
    assert any(
        line.startswith("3 clips without a probe: fewer than 5") for line in found.omissions()
    )
    assert diagnose(sides, change, (8,), **QUICK).verdict != "knows", "no arrow in common"
    with pytest.raises(InputError, match="62 clips have no label, the first is 'walk 1'"):
        diagnose(sides, change, (8,), {"walk 0": "up"}, **QUICK)


@pytest.mark.parametrize(
    "embed, count, verdict",
    [
        (mean, 20, "blind"),
        (change, 40, "knows"),
        (lambda x: np.concatenate([mean(x), change(x) / 10], 1), 120, "knows"),
        (lambda x: np.sin(1e4 * change(x)) + 2, 40, "cannot be said"),
        (lambda x: np.sin(1e4 * change(x)) + 2, 900, "no sign of order found"),
        (lambda x: np.ones((len(x), 3)), 20, "blind"),
    ],
)
def test_each_verdict_is_given_where_it_is_due(embed, count, verdict):
    found = diagnose(walks(count), embed, (4, 8), **QUICK)
    assert found.verdict == verdict, found.words
    assert found.verdicts["order-free control"] == "blind"
    assert found.verdicts["odd control"] == "knows"
    assert found.words.lower().startswith(verdict)
    assert ("would show a difference of 5 points" in found.words) == (verdict == "cannot be said")


def test_clips_for_is_the_power_that_it_says():
    """With as many clips as it says, a difference of 5 points is significant in about 4 of 5 cases."""
    half = 1.96 * 50 / np.sqrt(100)
    count = clips_for(50 - half, 50 + half, 100)
    assert count == 784
    draws = np.random.default_rng(0).binomial(count, 0.55, 4000) / count
    assert np.mean(draws - 0.5 > 1.96 * 0.5 / np.sqrt(count)) == pytest.approx(0.8, abs=0.03)


def test_known_numbers_and_equal_runs():
    clips = walks(30)
    found, again = (diagnose(clips, change, (4, 8), **QUICK) for _ in range(2))
    pd.testing.assert_frame_equal(found.table, again.table)
    rows = found.table.query("embedding == 'embedding' and change == 'reversed'").set_index(
        "measure"
    )
    np.testing.assert_allclose(rows.loc["cosine", ["mean", "low", "high"]].astype(float), -1)
    np.testing.assert_allclose(
        rows.loc["odd share (%)", ["mean", "low", "high"]].astype(float), 100
    )
    unchanged = found.table.query("change == 'unchanged'").groupby("measure")["mean"].unique()
    assert {name: list(v.round(9)) for name, v in unchanged.items()} == {
        "cosine": [1], "odd share (%)": [0], "probe accuracy (%)": [50],
    }  # fmt: skip
    assert (found.table["low"] <= found.table["mean"] + 1e-9).all()
    assert (found.table["mean"] <= found.table["high"] + 1e-9).all()


def test_short_clips_are_left_out_named_and_counted():
    clips = walks(12) | {f"short {n}": walk[:5] for n, walk in enumerate(walks(3).values())}
    found = diagnose(clips, change, (4, 8, 32), **QUICK)
    counts = found.table.query("embedding == 'embedding' and measure == 'cosine'")
    counts = counts.set_index(["change", "frames"])["clips"]
    assert counts["reversed", 4] == 15 and counts["first half", 4] == 12
    assert counts["reversed", 8] == 12 and 32 not in set(found.table["frames"])
    left = found.left_out.groupby(["change", "frames"])["clip_id"].agg(list)
    assert left["first half", 4] == left["reversed", 8] == ["short 0", "short 1", "short 2"]
    assert len(left["reversed", 32]) == 15
    assert "At 8 frames" in found.words and "15 clips without enough frames" in str(found)


def test_embeddings_of_zeros_have_no_cosine():
    clips = walks(12) | {"still": np.ones((16, 6))}
    found = diagnose(clips, change, (4,), **QUICK)
    assert "1 clips without a cosine: an embedding of zeros" in " ".join(found.omissions())
    assert (
        found.table.query("measure == 'cosine'")["clips"].max() == 13
    )  # of the order-free control


def test_an_embedder_that_answers_twice_is_found_out():
    rng = np.random.default_rng(0)
    found = diagnose(walks(20), lambda x: rng.normal(size=(len(x), 3)), (4,), **QUICK)
    assert "Asked twice about one clip it differs by" in found.words
    assert "Asked twice" not in diagnose(walks(20), change, (4,), **QUICK).words


@pytest.mark.parametrize(
    "clips, options, words",
    [
        ({}, {}, "no clips to diagnose"),
        (walks(6), {"frames": (1, 4)}, "at least 2"),
        (walks(6), {"frames": ()}, "at least 2"),
        (walks(6), {"bootstrap": 0}, "bootstrap must be at least 1"),
        (walks(6), {"name": "odd control"}, "that of a control"),
        ({"a": np.ones(16)}, {}, "clip 'a': expected"),
        (walks(6, length=3), {"frames": (8,)}, "none of the 6 clips has 8 frames"),
        (walks(4), {}, "needs 5 clips"),
    ],
)
def test_settings_that_make_no_sense_are_refused(clips, options, words):
    with pytest.raises((InputError, DiagnosisError), match=words):
        diagnose(clips, change, **{"frames": (4,), **options})


def test_an_embedder_that_makes_something_else_is_refused():
    for embed, words in (
        (lambda x: x, r"made \(6, 4, 6\) of 6 clips"),
        (lambda x: mean(x)[:2], r"made \(2, 6\) of 6 clips"),
        (lambda x: mean(x) * np.nan, "NaN"),
    ):
        with pytest.raises(DiagnosisError, match=f"mine: .*{words}"):
            diagnose(walks(6), embed, (4,), name="mine")


def test_the_page_holds_the_verdict_the_figure_and_what_is_left_out(tmp_path):
    clips = walks(12) | {"short": walks(1)["walk 0"][:3]}
    found = diagnose(clips, change, (2, 4), name="the change", **QUICK)
    page = found.save(tmp_path / "page")
    text = page.read_text()
    assert text.startswith("# the change\n") and found.words in text
    assert "![diagnosis](diagnosis.png)" in text and "1 clips without enough frames" in text
    assert "| reversed " in text
    for name in ("diagnosis.png", "diagnosis.svg", "measures.csv", "measures.tex", "summary.md"):
        assert (page.parent / name).stat().st_size > 0
    table = pd.read_csv(page.parent / "measures.csv")
    pd.testing.assert_frame_equal(table, found.table, check_dtype=False)
    assert list(pd.read_csv(page.parent / "left_out.csv")["clip_id"].unique()) == ["short"]


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Twelve videos of a spot that moves to the right, and one that is no video; only read."""
    folder = tmp_path_factory.mktemp("spots")
    for n in range(12):
        clip = np.zeros((20, 32, 64, 3), np.uint8)
        for t in range(20):
            clip[t, n : n + 8, 2 * t + n % 4 : 2 * t + 8 + n % 4] = 255
        write_video(folder / f"spot-{n:02d}.mp4", clip, frames_per_second=10)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def last_columns(clips):
    return np.stack([clip[-1].mean((0, 2)) for clip in clips])


def test_videos_are_changed_before_the_embedder_sees_them(spots):
    seen = diagnose_videos(last_columns, sorted(spots.glob("*.mp4")), (4, 8), **QUICK)
    assert seen.verdict == "knows" and seen.verdicts["order-free control"] == "blind"
    (cause,) = set(seen.left_out["cause"])
    assert cause.startswith("readable frames") and "broken.mp4" in cause
    order_free = diagnose_videos(
        lambda clips: np.stack([clip.astype(float).mean((0, 3)).ravel() for clip in clips]),
        sorted(spots.glob("spot*.mp4")), (4,), **QUICK,
    )  # fmt: skip
    assert order_free.verdict == "blind"


def test_video_clips_read_ranges_and_no_frame_twice(spots):
    table = pd.DataFrame({"clip_id": ["part", "gone"], "path": ["spot-00.mp4", "gone.mp4"],
                          "start": [0.5, np.nan], "end": [1.45, np.nan]})  # fmt: skip
    clips = VideoClips(table, 63, root=spots)
    part = clips["part"]
    assert len(clips) == 2 and part.shape == (10, 32, 64, 3)
    assert len({frame.tobytes() for frame in part}) == 10
    assert VideoClips(table, 4, 16, spots)["part"].shape == (4, 16, 32, 3)
    with pytest.raises(VideoError, match="gone.mp4"):
        clips["gone"]


def test_the_packaged_model_sees_changed_frames_as_changed_features(spots):
    """The backbone sees one frame at a time, so both ways give the same diagnosis."""
    table = pd.DataFrame({"clip_id": [f"{n}" for n in range(6)], "start": None, "end": None,
                          "path": [f"spot-{n:02d}.mp4" for n in range(6)]})  # fmt: skip
    settings = {"frames": (3,), "root": spots, **QUICK}
    by_features = diagnose_named("packaged", table, device="cpu", **settings)
    embed = frame_embedder(load_model(), "cpu")
    by_frames = diagnose_videos(embed, table, name="packaged", **settings)
    ours = [found.table.query("embedding == 'packaged'") for found in (by_features, by_frames)]
    np.testing.assert_allclose(ours[0]["mean"], ours[1]["mean"], atol=0.1)
    share = ours[0].query("change == 'reversed' and measure == 'odd share (%)'")["mean"].item()
    assert share > 10, "half of the code turns its sign"


def test_methods_and_functions_by_name_on_a_store(tmp_path, monkeypatch):
    import torch

    store = FeatureStore.create(tmp_path / "store", {"name": "walks"}, frames=16, dim=6)
    store.append([*walks(20)], torch.tensor(np.stack([*walks(20).values()])))
    (tmp_path / "my_embedder.py").write_text("def last(x):\n    return x[:, -1]\n\nlist_ = [1]\n")
    monkeypatch.chdir(tmp_path)
    verdicts = {name: diagnose_named(name, store, (8,), **QUICK).verdict
                for name in ("mean", "slope", "my_embedder:last")}  # fmt: skip
    assert verdicts == {"mean": "blind", "slope": "knows", "my_embedder:last": "knows"}
    few = dict.fromkeys(store.ids[:8], "one label")
    assert diagnose_named("slope", store, (8,), labels=few, **QUICK).table["clips"].max() == 8
    for name, words in (("my_embedder:none", "no such function"), ("nowhere:f", "no such function"),
                        ("my_embedder:list_", "is a list, not a function")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            diagnose_named(name, store, (8,), **QUICK)
    with pytest.raises(EmbeddingError, match="made by a backbone with name 'walks'"):
        diagnose_named("packaged", store, (8,), **QUICK)


def test_clips_are_asked_for_once():
    asked = []

    class Counting(dict):
        def __getitem__(self, key):
            asked.append(key)
            return super().__getitem__(key)

    diagnose_clips(
        lambda clips: np.stack([c[-1] for c in clips]), Counting(walks(7)), (2, 4), **QUICK
    )
    assert len(asked) == 7


def command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of `lift diagnose`."""
    from lift import cli

    monkeypatch.setattr("sys.argv", ["lift", "diagnose", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    return caught.value.code or 0, output.out, output.err


def test_the_command_on_videos_names_what_it_could_not_read(spots, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(spots, tmp_path / "videos")
    (folder / "notes.txt").touch()
    code, out, err = command(
        monkeypatch, capsys, "test_diagnosis:last_columns", folder, "--out", tmp_path / "page",
        "--frames", 4, "--frames", 8, "--bootstrap", 100, "--json",
    )  # fmt: skip
    assert code == 1, "a video could not be read"
    result = json.loads(out)
    assert result["verdict"] == "knows" and result["page"] == str(tmp_path / "page" / "README.md")
    assert "broken.mp4" in err and "passed over, no videos by name: 1" in err
    assert (tmp_path / "page" / "diagnosis.svg").is_file()


def test_the_command_on_a_table_with_labels(spots, tmp_path, monkeypatch, capsys):
    table = pd.DataFrame({"clip_id": [f"spot {n}" for n in range(12)], "split": "train",
                          "path": [f"spot-{n:02d}.mp4" for n in range(12)], "label": "moves"})  # fmt: skip
    folder = shutil.copytree(spots, tmp_path / "videos")
    table.to_csv(folder / "clips.csv", index=False)
    table[:10].to_csv(tmp_path / "labels.csv", index=False)
    code, out, err = command(
        monkeypatch, capsys, "mean", folder / "clips.csv", "--out", tmp_path / "page", "--frames", 3,
        "--labels", tmp_path / "labels.csv", "--bootstrap", 50, "--device", "cpu",
    )  # fmt: skip
    assert code == 0 and out.startswith("Blind. At 3 frames") and "10 clips)" in out
    assert "2 of 12 clips have no label" in err and "spot 10, spot 11" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("mean", "nowhere"), "nowhere: no such video or folder"),
        (("no/model", "store"), "no/model: there is no such folder"),
        (("nowhere:function", "store"), "nowhere:function: no such function"),
        (("mean", "store", "--frames", "1"), "at least 2"),
        (("mean", "store", "--labels", "none.csv"), "none.csv"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store = FeatureStore.create("store", {"name": "walks"}, frames=16, dim=6)
    store.append([*walks(6)], torch.tensor(np.stack([*walks(6).values()])))
    code, out, err = command(monkeypatch, capsys, *arguments, "--out", "page")
    assert code == 1 and out == "" and words in err.splitlines()[-1]
    assert not (tmp_path / "page").exists()
