"""EPIC-KITCHENS-100 on a miniature copy, and on the real validation list where it is beside the project."""

import pytest
from miniature import make_chirality_lists, make_epic

from lift.data import epic
from lift.data.chiral import published_groups, read_lists, statistics, write_lists
from lift.data.status import DatasetError


@pytest.fixture
def root(tmp_path):
    return make_epic(tmp_path / "epic")


def names(rows):
    return set(
        rows[["verb_forward", "verb_reverse", "group_noun"]].itertuples(index=False, name=None)
    )


def test_mined_groups_by_noun_class(root):
    rows = epic.mine(root)
    assert names(rows) == {
        ("open", "close", "cupboard"),
        ("open", "close", "plate"),
        ("pick-up", "put-down", "cupboard"),
    } | {("pick-up", "put-down", "plate")}
    row = rows[rows["narration_id"] == "P01_11_30"].iloc[0]
    assert row["id"] == "P01/videos/P01_11_30.0_30.9"
    assert row["template"] == "pick-up plate"
    assert row["chiral_label"] == 1
    assert (row["start_sec"], row["stop_sec"]) == (30.0, 30.89)


def test_lists_without_narrations_go_by_class(tmp_path):
    rows = epic.mine(make_epic(tmp_path, narrated=False))
    assert names(rows) == {
        (a, b, noun)
        for a, b in (("open", "close"), ("take", "put"))
        for noun in ("cupboard", "plate")
    }
    (tmp_path / "EPIC_100_verb_classes.csv").unlink()
    with pytest.raises(DatasetError, match="need EPIC_100_verb_classes.csv"):
        epic.mine(tmp_path)


def test_without_the_class_list_a_noun_is_named_as_spoken(root):
    (root / "EPIC_100_noun_classes.csv").unlink()
    assert ("open", "close", "door") in names(epic.mine(root))


def test_a_noun_class_that_nobody_spoke_is_called_by_its_number(tmp_path):
    root, other = make_epic(tmp_path / "epic"), make_epic(tmp_path / "other", narrated=False)
    (root / "EPIC_100_validation.csv").write_text(
        (other / "EPIC_100_validation.csv").read_text().replace(",2,[2]", ",77,[77]")
    )
    (root / "EPIC_100_noun_classes.csv").unlink()
    table = epic.read_annotations(root)
    assert set(table.loc[table["split"] == "validation", "noun_value"]) == {"door", "77"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("P01,P01_11,", ",P01_11,"), ("P01,P01_11,", "P01,,"), ("P01,P01_11,", "P01,P01;11,")],
)
def test_an_id_that_no_list_could_hold_is_an_unusable_row(root, old, new):
    path = root / "EPIC_100_train.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    clips = epic.chiral_clips(root)
    assert len(clips) == 95 and not clips.attrs["missing"]
    assert list(clips.attrs["unusable"]) == ["EPIC_100_train.csv row 2 (P01_11_0)"]
    assert "is empty or holds ';'" in clips.attrs["unusable"]["EPIC_100_train.csv row 2 (P01_11_0)"]


def test_thresholds(tmp_path):
    root = make_epic(tmp_path, clips=5)
    with pytest.raises(DatasetError, match="no chiral group"):
        epic.mine(root)
    assert len(epic.mine(root, rule="all")) == 80


def test_ranges_of_long_videos_and_cut_files(root):
    make_chirality_lists(root, "epic")
    clips = epic.chiral_clips(root).set_index("clip_id")
    row = clips.loc["P01/videos/P01_11_30.0_30.9"]
    assert (row["path"], row["start"], row["end"]) == ("P01/videos/P01_11.MP4", 30.0, 30.9)
    (root / "P01/videos/P01_11_30.0_30.9.MP4").touch()
    row = epic.chiral_clips(root).set_index("clip_id").loc["P01/videos/P01_11_30.0_30.9"]
    assert row["path"] == "P01/videos/P01_11_30.0_30.9.MP4" and row[["start", "end"]].isna().all()


def test_a_faulty_range_and_a_missing_video_cost_nothing_else(root):
    ids = {
        ("train", 1): ["P01/videos/P01_11_30.0_30.9", "P01/videos/P01_11_5.0_5.0"],
        ("train", 0): ["P01/videos/P01_11_42.0_42.9", "P09/videos/P09_01_1.0_2.0"],
        ("validation", 1): ["P02/videos/P02_101_30.0_30.9"],
        ("validation", 0): ["P02/videos/P02_101_42.0_42.9"],
    }
    make_chirality_lists(root, "epic", ids)
    clips = epic.chiral_clips(root)
    assert len(clips) == 4
    assert clips.attrs["missing"] == {"P09/videos/P09_01_1.0_2.0": "P09/videos/P09_01.MP4"}
    assert clips.attrs["unusable"] == {
        "P01/videos/P01_11_5.0_5.0": "ends (5 s) where it starts (5 s) or before"
    }


def test_unusable_annotations_are_named(root):
    path = root / "EPIC_100_train.csv"
    text = (
        path.read_text()
        .replace("00:00:01.00,00:00:01.89", "00:00:01.00,00:00:01.00")
        .replace("00:00:02.89", "soon")
    )
    path.write_text(text.replace("cupboard", "door"))
    table = epic.read_annotations(root)
    assert table.attrs["unusable"] == {
        "EPIC_100_train.csv row 3 (P01_11_1)": "ends (1 s) where it starts (1 s) or before",
        "EPIC_100_train.csv row 4 (P01_11_2)": "timestamp 'soon' is not of the form HH:MM:SS.ff",
    }
    assert len(table) == 118


def test_broken_files_are_refused(root):
    path = root / "EPIC_100_validation.csv"
    path.write_text(path.read_text().replace("stop_timestamp", "end"))
    with pytest.raises(
        DatasetError, match=r"EPIC_100_validation\.csv: lacks the column stop_timestamp"
    ):
        epic.mine(root)
    with pytest.raises(DatasetError, match="is a file"):
        epic.chiral_clips(path)
    for name in ("train", "validation"):
        (root / f"EPIC_100_{name}.csv").unlink()
    with pytest.raises(DatasetError, match=r"lacks EPIC_100_validation\.csv or annotations/"):
        epic.mine(root)


def test_describe(root):
    assert epic.describe(root).found and epic.describe(root).clips == 96
    (root / "P01/videos/P01_11.MP4").unlink()
    status = epic.describe(root)
    assert not status.found
    assert status.clips == 48
    assert "P01/videos/P01_11.MP4" in str(status)
    assert "epic-kitchens" in str(status)


def test_real_ranges_are_read(tmp_path):
    from lift.video import probe_video, read_clip

    root = make_epic(tmp_path, real=True)
    clips = epic.chiral_clips(root)
    rates = {}
    for _, row in clips.groupby("path").first().reset_index().iterrows():
        assert read_clip(root / row["path"], 4, row["start"], row["end"]).shape == (4, 32, 32, 3)
        rates[row["path"]] = probe_video(root / row["path"]).frames_per_second
    assert rates == pytest.approx(
        {"P01/videos/P01_11.MP4": 59.94, "P02/videos/P02_101.MP4": 50}, abs=0.01
    )


@pytest.mark.parametrize(
    ("rule", "groups", "rows", "known"), [("published-like", 66, 3115, 53), ("all", 160, 3605, 55)]
)
def test_the_real_validation_list(shared, tmp_path, rule, groups, rows, known):
    """Published: 66 groups, 3,109 validation rows, of which 55 groups are known by name."""
    annotations = shared / "annotations/epic100"
    if not annotations.is_dir():
        pytest.skip("the EPIC annotations are absent")
    mined = epic.mine(annotations, rule)
    published = set(
        published_groups("epic")[["forward", "reverse", "noun"]].itertuples(index=False, name=None)
    )
    assert (len(names(mined)), len(mined), len(names(mined) & published)) == (groups, rows, known)
    assert (
        mined.loc[mined["narration_id"] == "P01_11_1", "id"].item() == "P01/videos/P01_11_1.6_2.4"
    )
    write_lists(mined, tmp_path, "epic")
    assert statistics(read_lists(tmp_path, "epic", ["validation"])).loc[
        0, ["groups", "test"]
    ].tolist() == [groups, rows]
