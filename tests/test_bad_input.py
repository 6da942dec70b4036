"""What real copies of data sets are like: each fault gets one clear line that names its file, and costs nothing else."""

import json
from pathlib import Path

import pandas as pd
import pytest
from miniature import make_all, make_charades, make_chirality_lists, make_epic

from lift.backbones import create_backbone
from lift.benchmarks import BENCHMARKS, clip_tables, make_clip_tables
from lift.data import actions, charades, epic, ssv2
from lift.data.status import DatasetError
from lift.extraction import extract
from lift.reproduction import Run


@pytest.fixture
def data(tmp_path) -> Path:
    """All data sets; clip tables open no video, so these are empty files."""
    return make_all(tmp_path / "data", real=False)


def notes(data: Path) -> tuple[dict[str, str], Run]:
    """The line that each benchmark gets."""
    run = Run("mini", data.parent, {"real": {}})
    told = make_clip_tables(run, data)
    lines = told.splitlines()
    assert len(lines) == len(BENCHMARKS), "a line each"
    return dict(line.split(": ", 1) for line in lines), run


def cut(path: Path) -> None:
    """Break off in the middle of a quoted cell."""
    path.write_text(path.read_text() + 'x,"broken off')


def latin(path: Path) -> None:
    """One line in another encoding than the others."""
    path.write_bytes(path.read_bytes() + "Café/v_é.avi 1\r\n".encode("latin-1"))


def binary(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def html(path: Path) -> None:
    """What a download gives that was refused."""
    path.write_text("<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>\n")


TEXTS = {
    "ssv2/labels/labels.json": "cia-ssv2", "ssv2/labels/train.json": "ssv2",
    "epic/EPIC_100_validation.csv": "cia-epic", "epic/EPIC_100_noun_classes.csv": "cia-epic",
    "charades/Charades_v1_test.csv": "cia-charades",
    "charades/Charades_v1_mapping.txt": "cia-charades", "kinetics400/val.csv": "kinetics400",
    "ucf101/trainlist01.txt": "ucf101", "hmdb51/wave_test_split1.txt": "hmdb51",
}  # fmt: skip


@pytest.mark.parametrize(
    "fault", [cut, latin, binary, empty, html], ids=lambda fault: fault.__name__
)
@pytest.mark.parametrize("name", TEXTS)
def test_a_broken_annotation_file_is_refused_in_a_line_or_its_rows_are_named(data, name, fault):
    fault(data / name)
    benchmark = BENCHMARKS[TEXTS[name]]
    try:
        clips = benchmark.make_clips(data / benchmark.folder)
    except DatasetError as error:
        assert "\n" not in str(error) and str(data / benchmark.folder) in str(error)
        assert Path(name).name in str(error)
    else:
        assert fault in (cut, html) and len(clips) > 0
        assert any(Path(name).name in place for place in clips.attrs["unusable"])


DESCRIBED = {
    "ssv2": ssv2.describe, "epic": epic.describe, "charades": charades.describe,
    "kinetics400": actions.describe_kinetics, "ucf101": actions.describe_ucf101, "hmdb51": actions.describe_hmdb51,
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "epic/EPIC_100_train.csv", "epic/EPIC_100_validation.csv", "charades/Charades_v1_train.csv", "charades/Charades_v1_test.csv",
        "ssv2/labels/train.json", "ssv2/labels/validation.json", "kinetics400/val.csv", "ucf101/testlist01.txt",
        "hmdb51/wave_test_split1.txt", "ssv2/chirality-in-action/chiral_groups-ssv2-train.csv",
        "epic/chirality-in-action/chiral_groups-epic-validation.csv",
    ],
)  # fmt: skip
def test_half_a_data_set_is_incomplete_and_the_list_is_named(data, name):
    for folder in ("ssv2", "epic", "charades") if "chirality" in name else ():
        make_chirality_lists(data / folder, folder)
    folder = name.split("/")[0]
    assert not any(
        "list" in line or "lacks" in line for line in DESCRIBED[folder](data / folder).missing
    )
    (data / name).unlink()
    status = DESCRIBED[folder](data / folder)
    assert not status.found and any(Path(name).name in line for line in status.missing), (
        status.missing
    )


@pytest.mark.parametrize("name", ["ucf101/trainlist01.txt", "hmdb51/wave_test_split1.txt"])
def test_an_empty_list_is_refused_by_name(data, name):
    empty(data / name)
    folder = name.split("/")[0]
    with pytest.raises(DatasetError, match=f"{Path(name).name}: is empty"):
        BENCHMARKS[folder].make_clips(data / folder)


@pytest.mark.parametrize("time", ["inf", "1e999", "nan", "-3"])
def test_a_time_that_is_no_time_is_an_unusable_row(data, time):
    path = data / "charades/Charades_v1_train.csv"
    path.write_text(path.read_text().replace("c077 12.10 16.62", f"c077 12.10 {time}", 1))
    path = data / "epic/EPIC_100_train.csv"
    path.write_text(
        path.read_text().replace("00:00:01.00,00:00:01.89", f"00:00:01.00,00:00:{time}", 1)
    )
    told, run = notes(data)
    states = json.loads((run.folder / "clips" / "benchmarks.json").read_text())
    assert list(states["cia-charades"]["unusable"]) == [
        f"Charades_v1_train.csv TR000 (c077 12.10 {time})"
    ]
    assert list(states["cia-epic"]["unusable"]) == ["EPIC_100_train.csv row 3 (P01_11_1)"]
    assert "expected seconds from 0 up" in [*states["cia-charades"]["unusable"].values()][0]


@pytest.mark.parametrize("index", ["abc", [1], {}, "1.5", "-1", None])
def test_a_class_index_that_is_none_is_refused_by_file_and_class(data, index):
    path = data / "ssv2/labels/labels.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "Holding something": index}))
    with pytest.raises(
        DatasetError,
        match=r"labels\.json: class 'Holding something': index .* is not a whole number",
    ):
        ssv2.read_annotations(data / "ssv2")


def test_a_list_of_groups_without_a_group_is_refused(data):
    folder = make_chirality_lists(data / "ssv2", "ssv2")
    path = folder / "chiral_groups-ssv2-train.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DatasetError, match=r"chiral_groups-ssv2-train\.csv: has no group"):
        BENCHMARKS["cia-ssv2"].make_clips(data / "ssv2")


def test_a_clip_of_both_splits_is_named_and_not_scored(data):
    """Otherwise a probe would be scored on a clip that it was trained on."""
    path, other = data / "epic/EPIC_100_train.csv", data / "epic/EPIC_100_validation.csv"
    other.write_text(other.read_text() + path.read_text().splitlines()[3] + "\n")
    clips = epic.chiral_clips(data / "epic")
    assert clips.attrs["unusable"] == {
        "P01/videos/P01_11_2.0_2.9": "is in the lists of both splits"
    }
    assert "P01/videos/P01_11_2.0_2.9" not in set(clips["clip_id"]) and len(clips) == 95
    path, other = data / "charades/Charades_v1_train.csv", data / "charades/Charades_v1_test.csv"
    other.write_text(other.read_text() + path.read_text().splitlines()[1] + "\n")
    clips = charades.chiral_clips(data / "charades")
    assert len(clips.attrs["unusable"]) == 8 and not clips["clip_id"].str.startswith("TR000").any()


@pytest.mark.parametrize(
    ("dataset", "make"), [("epic", epic), ("charades", charades), ("ssv2", ssv2)]
)
def test_annotations_without_a_usable_row_are_refused_with_the_first_fault(data, dataset, make):
    for path in (data / dataset).rglob("*"):
        if path.suffix == ".csv" and "classes" not in path.name:
            path.write_text(
                path.read_text()
                .replace("00:00:", "zero:")
                .replace("00:01:", "one:")
                .replace("c0", "d0")
                .replace("c1", "d1")
            )
        if path.name in ("train.json", "validation.json"):
            path.write_text("[{}]")
    with pytest.raises(
        DatasetError,
        match="no usable row; the first fault: (EPIC_100_train|Charades_v1_train|train).* ",
    ):
        make.read_annotations(data / dataset)


def test_a_label_that_no_file_can_have_costs_the_other_data_sets_nothing(data):
    path = data / "kinetics400/train.csv"
    path.write_text(path.read_text() + "a" * 300 + ",x,1,2,train\n")
    status = actions.describe_kinetics(data / "kinetics400")
    assert not status.found
    assert "File name too long" in status.missing[0]
    assert "\n" not in status.missing[0]


def test_broken_data_sets_get_a_line_each_and_cost_nothing_else(data):
    (data / "ssv2").rename(data.parent / "ssv2")
    (data / "ssv2").touch()
    cut(data / "epic/EPIC_100_validation.csv")
    latin(data / "charades/Charades_v1_test.csv")
    (data / "kinetics400").rename(data / "k400")
    for path in (data / "hmdb51").glob("*.txt"):
        path.unlink()
    told, run = notes(data)
    assert list(clip_tables(run)) == ["ucf101", "diving48"] and told["ucf101"].startswith(
        "8 clips; "
    )
    words = {
        "cia-ssv2": "ssv2: is a file; give the folder", "ssv2": "is a file", "ssv2-temporal": "is a file",
        "cia-epic": "EPIC_100_validation.csv: is not a CSV table", "cia-charades": "Charades_v1_test.csv: line 9 is not UTF-8 text",
        "kinetics400": "no such folder", "kinetics400-temporal": "no such folder", "hmdb51": "lacks CLASS_test_split1.txt",
    }  # fmt: skip
    assert all(text in told[name] for name, text in words.items()), told


@pytest.mark.parametrize("name", [name for name in TEXTS if not name.endswith("json")])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(data, name):
    benchmark, path = BENCHMARKS[TEXTS[name]], data / name
    before = benchmark.make_clips(data / benchmark.folder)
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    )
    pd.testing.assert_frame_equal(benchmark.make_clips(data / benchmark.folder), before)


def test_ids_with_spaces_and_ampersands(data):
    clips = BENCHMARKS["hmdb51"].make_clips(data / "hmdb51")
    assert "brush_hair/Pay & [Brush] it!_nm_np1_fr_med_1" in set(clips["clip_id"])
    ids = {
        (split, sign): [f"{split} & {sign} [x]"]
        for split in ("train", "validation")
        for sign in (0, 1)
    }
    make_chirality_lists(data / "ssv2", "ssv2", ids)
    for names in ids.values():
        (data / "ssv2/20bn-something-something-v2" / f"{names[0]}.webm").touch()
    clips = BENCHMARKS["cia-ssv2"].make_clips(data / "ssv2")
    assert set(clips["clip_id"]) == {names[0] for names in ids.values()}


def test_zero_length_ranges_are_named_and_cost_nothing_else(data):
    path = data / "epic/EPIC_100_train.csv"
    path.write_text(path.read_text().replace("00:00:01.00,00:00:01.89", "00:00:01.00,00:00:01.00"))
    told, run = notes(data)
    assert (
        told["cia-epic"]
        == "95 clips; 0 without a video; 1 unusable rows (EPIC_100_train.csv row 3 (P01_11_1))"
    )
    state = json.loads((run.folder / "clips" / "benchmarks.json").read_text())["cia-epic"]
    assert list(state["unusable"].values()) == ["ends (1 s) where it starts (1 s) or before"]


@pytest.mark.parametrize(
    ("make", "adapter", "start"),
    [(make_charades, charades, "TE000_99.0_103.5"), (make_epic, epic, None)],
)
def test_an_annotation_past_the_end_of_its_video_is_a_failure_of_that_clip(
    tmp_path, make, adapter, start
):
    root = make(tmp_path / "data", real=True)
    if start:
        path = root / "Charades_v1_test.csv"
        path.write_text(path.read_text().replace("c079 2.00 6.50", "c079 99.00 103.50", 1))
    else:
        path = root / "EPIC_100_validation.csv"
        path.write_text(
            path.read_text().replace("00:00:01.00,00:00:01.89", "01:00:01.00,01:00:01.89")
        )
    clips = adapter.chiral_clips(root, rule="all")
    late = start or "P02/videos/P02_101_3601.0_3601.9"
    some = clips[clips["path"] == clips.set_index("clip_id").at[late, "path"]]
    backbone = create_backbone("test_efficientnet", "random")
    report = extract(
        some, tmp_path / "store", backbone, frames=2, workers=0, video_root=root, progress=False
    )
    assert list(report.failed) == [late] and report.done == len(some) - 1
    assert "past the end of the video" in report.failed[late] and "\n" not in report.failed[late]
