"""The command line: the whole way of the data, exit codes, one-line errors."""

import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from miniature import make_epic, make_hmdb51, make_ucf101
from typer.testing import CliRunner

from lift.cli import app, main
from lift.embedding import write_embeddings
from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore
from lift.video import write_video

ROOT = Path(__file__).parents[1]
LIFT = Path(sys.executable).parent / "lift"


def lift(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The command in this process: a new one needs seconds for its imports."""
    command = ["lift", *map(str, arguments)]
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        patch.chdir(cwd or Path.cwd())
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    out.seek(0)
    return subprocess.CompletedProcess(command, status, out.read(), err.getvalue())


def lift_alone(*arguments: object) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run([LIFT, *map(str, arguments)], capture_output=True, text=True)


def succeed(*arguments: object) -> dict:
    result = lift(*arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) if "--json" in arguments else {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def benchmark(folder) -> Path:
    out = folder / "benchmark"
    succeed("synth", out, "--clips", 3, "--test-clips", 2, "--size", 96)
    return out


@pytest.fixture(scope="module")
def store(folder, benchmark) -> Path:
    succeed("extract", benchmark / "clips.csv", folder / "store", "--frames", 8)
    return folder / "store"


@pytest.fixture(scope="module")
def model(folder, benchmark, store) -> Path:
    options = (
        "--latent-dim", 16, "--depth=1", "--heads", 2, "--epochs", 2, "--learning-rate", "1e-3",
        "--no-progress",
    )  # fmt: skip
    succeed("train", store, folder / "model", "--clips", benchmark / "clips.csv", *options)
    return folder / "model"


def test_the_whole_way_from_nothing_to_a_result(folder, benchmark, store, model):
    clips = pd.read_csv(benchmark / "clips.csv")
    embedded = succeed("embed", store, "--out", folder / "all.parquet", "--model", model, "--json")
    assert embedded["embedded"] == len(clips)
    assert embedded["dimension"] == 32
    assert embedded["failed"] == {}
    summary = succeed(
        "probe", folder / "all.parquet", benchmark / "clips.csv", "--out", folder / "results",
        "--json",
    )  # fmt: skip
    assert summary["groups"] == clips["group"].nunique()
    assert 0 <= summary["low"] <= summary["mean"] <= summary["high"] <= 100
    assert list((folder / "results").iterdir())


def test_training_uses_the_training_split_only(model, benchmark):
    trained = (pd.read_csv(benchmark / "clips.csv")["split"] == "train").sum()
    assert f"{trained} clips of the split train" in (model / "README.md").read_text()


def test_extract_again_does_nothing_again(folder, benchmark, store):
    result = succeed("extract", benchmark / "clips.csv", store, "--frames", 8, "--json")
    assert not result["failed"] and result["done"] == 0
    assert result["skipped"] == len(pd.read_csv(benchmark / "clips.csv"))


def test_embed_with_the_packaged_model(folder, benchmark):
    video = sorted((benchmark / "videos").glob("*.mp4"))[0]
    result = succeed("embed", video, "--out", folder / "one.parquet", "--json")
    table = pd.read_parquet(folder / "one.parquet")
    assert list(table.columns) == ["clip_id", "embedding"] and table["clip_id"][0] == str(video)
    assert np.isfinite(table["embedding"][0]).all()
    assert len(table["embedding"][0]) == result["dimension"]


def test_embed_names_what_it_cannot_read_and_does_the_rest(folder, tmp_path):
    write_video(
        tmp_path / "good.mp4",
        np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8),
    )
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    result = lift("embed", tmp_path, "--out", tmp_path / "out.parquet")
    assert result.returncode == 1
    assert "broken.mp4" in result.stderr
    assert "Traceback" not in result.stderr
    assert [Path(name).name for name in pd.read_parquet(tmp_path / "out.parquet")["clip_id"]] == [
        "good.mp4"
    ]


def test_embed_refuses_videos_for_a_model_that_names_no_backbone(tmp_path):
    model, video = LiFT(LiFTConfig(8, 8, 1, 2)), tmp_path / "clip.mp4"
    model.save_pretrained(tmp_path / "model")
    video.write_bytes(b"not looked at")
    out = tmp_path / "out.parquet"
    result = lift("embed", video, "--out", out, "--model", tmp_path / "model")
    assert result.returncode == 1
    assert result.stderr.startswith("lift: the model does not say which backbone")
    assert result.stderr.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("embed", "nowhere.mp4", "--out", "x.parquet"), "nowhere.mp4"),
        (("extract", "nowhere.csv", "store"), "nowhere.csv"),
        (("train", "nowhere", "out"), "nowhere"),
        (("probe", "nowhere.parquet", "nowhere.csv", "--out", "x"), "nowhere"),
        (("synth", "out", "--difficulty", "impossible"), "impossible"),
    ],
)
def test_errors_are_one_line_that_names_the_cause(arguments, words, tmp_path):
    result = lift(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("lift: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example_that_can_be_typed(name):
    command = COMMANDS[name]
    words = shlex.split(command.epilog)
    assert words[:3] == ["Example:", "lift", name]
    if name == "train":  # its options are those of the recipe
        shown = lift("train", "--help").stdout
        assert command.epilog in shown and {w for w in words if w[:2] == "--"} <= set(shown.split())
    else:
        command.make_context(name, words[3:])  # parses; refuses an option that there is not
        assert "Example: lift" in CliRunner().invoke(app, [name, "--help"]).output


def test_opposites_of_what_has_no_odd_part_are_refused(tmp_path):
    file = tmp_path / "mean.parquet"
    write_embeddings(file, ["a", "b"], np.eye(2, dtype=np.float32), {"method": "mean"})
    result = lift("opposites", file, "--out", tmp_path / "out")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "mean.parquet: no part of these embeddings is known to change its sign" in result.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_opposites_of_a_store_are_a_table_without_a_figure(tmp_path):
    file, v = tmp_path / "v.parquet", np.array([[0, 1, 0], [5, -1, 0], [5, 0, 1]], np.float32)
    write_embeddings(file, ["up", "down", "left"], v, {"method": "lift", "odd_from": 1})
    result = lift("opposites", file, "--out", tmp_path / "out", "--json")
    assert result.returncode == 0 and "no figure" in result.stderr
    assert json.loads(result.stdout) == {"clips": 3, "drawn": 0, "out": str(tmp_path / "out")}
    found = pd.read_csv(tmp_path / "out" / "opposites.csv").set_index("query")
    assert found.loc[["up", "down"], "clip_id"].tolist() == ["down", "up"]
    assert found["similarity"].tolist() == [1, 1, 0]


def test_a_progress_bar_says_clips_per_second_and_the_time_left(folder, benchmark):
    video = sorted((benchmark / "videos").glob("*.mp4"))[0]
    shown = lift("embed", video, "--out", folder / "bar.parquet").stderr
    assert re.search(r"1/1 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ clips/s", shown)


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("command", ["synth", "extract", "train", "embed", "probe", "mine"])
@pytest.mark.parametrize(
    "place, words",
    [("file/below", "a file"), ("/proc/below/it", "nothing can be written"), ("wrong", "")],
)
def test_a_place_that_cannot_be_written_is_found_before_any_work(
    monkeypatch, capsys, tmp_path, command, place, words
):
    """No input is read but the one that says what to do: the libraries that work are not there."""
    from lift import cli

    (tmp_path / "file").touch()
    (tmp_path / "clips.csv").write_text("clip_id,path,split,label\na,v.mp4,train,x\n")
    (tmp_path / "v.mp4").touch()
    (tmp_path / "folder").mkdir()
    store = FeatureStore.create(tmp_path / "store", {"name": "made up"}, frames=2, dim=8)
    place = tmp_path / place
    if words == "":  # a folder where a file belongs, and the other way round
        folder, file = (tmp_path / "folder", "is a folder"), (tmp_path / "file", "a file")
        place, words = folder if command == "embed" else file
    arguments = {
        "synth": [place],
        "extract": [tmp_path / "clips.csv", place],
        "train": [store.path, place],
        "embed": [tmp_path / "v.mp4", "--out", place],
        "probe": [tmp_path / "e.parquet", tmp_path / "clips.csv", "--out", place],
        "mine": ["epic", tmp_path, place],
    }[command]
    before = listing(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lift", command, *map(str, arguments)])
    for name in (
        "lift.backbones.create_backbone",
        "lift.model.LiFT.from_pretrained",
        "lift.training.fit",
    ):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    error = capsys.readouterr().err
    assert caught.value.code == 1
    assert error.count("\n") == 1
    assert words in error
    assert listing(tmp_path) == before


def test_a_full_disk_is_found_before_any_work(monkeypatch, tmp_path):
    from lift import cli

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.os, "fsync", full)
    with pytest.raises(
        OSError, match=r"new/deep: nothing can be written there \(No space left on device\)"
    ):
        cli._check_folder(tmp_path / "new" / "deep")
    assert not listing(tmp_path), "what was made to find out is taken away"


def test_features_are_kept_when_the_table_cannot_be_written_and_when_the_work_is_interrupted(
    monkeypatch, capsys, tmp_path
):
    from lift import cli, embedding, extraction

    for n in range(2):
        write_video(
            tmp_path / f"{n}.mp4",
            np.random.default_rng(n).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8),
        )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted(self):
        finish(self)
        raise KeyboardInterrupt

    finish = extraction.Writer.finish
    for owner, name, fault in (
        (embedding.pq, "write_table", full),
        (extraction.Writer, "finish", interrupted),
    ):
        with monkeypatch.context() as patch:
            if name == "write_table":
                patch.setattr(embedding, "write_whole", fault)
            else:
                patch.setattr(owner, name, fault)
            patch.setattr(
                sys, "argv",
                [
                    "lift", "embed", str(tmp_path), "--out", str(tmp_path / "out.parquet"),
                    "--workers", "0",
                ],
            )  # fmt: skip
            with pytest.raises(SystemExit) as caught:
                cli.main()
        assert caught.value.code in (1, 130)
        store = next(word for word in capsys.readouterr().err.split() if word.endswith("/store"))
        assert len(FeatureStore.open(store)) == 2
        again = succeed("embed", store, "--out", tmp_path / "again.parquet", "--json")
        assert again["embedded"] == 2


def test_embed_takes_what_ffmpeg_reads_through_links_and_names_what_it_passes_over(tmp_path):
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.TS", "c.mkv", "deep/d.mov"):
        write_video(folder / name.lower(), frames)
        (folder / name.lower()).rename(folder / name)
    write_video(tmp_path / "elsewhere" / "e.mp4", frames)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "loop").symlink_to(folder)
    for name in ("a.txt", "deep/b.csv"):
        (folder / name).touch()
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    names = ["a.mp4", "b.TS", "c.mkv", "deep/d.mov", "linked/e.mp4"]
    bad = os.fsdecode(b"caf\xe9.mp4")
    with suppress(OSError):  # some disks take UTF-8 names only
        write_video(tmp_path / "plain.mp4", frames).rename(folder / bad)
        names.append("caf\\xe9.mp4")
    result = lift("embed", folder, "--out", tmp_path / "out.parquet", "--json", "--timeout", 60)
    told = json.loads(result.stdout)
    found = [
        str(Path(name).relative_to(folder))
        for name in pd.read_parquet(tmp_path / "out.parquet")["clip_id"]
    ]
    assert sorted(found) == sorted(names) and told["embedded"] == len(names)
    assert result.returncode == 1
    assert list(told["failed"]) == [str(folder / "gone.mp4")]
    assert "gone.mp4: no such file" in result.stderr
    assert sorted(Path(name).name for name in told["passed_over"]) == ["a.txt", "b.csv", "loop"]
    assert "3 files are no videos by name and passed over: " in result.stderr
    assert "b.csv" in result.stderr


@pytest.mark.parametrize(
    "suffix",
    ".mp4 .webm .avi .mkv .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .asf .flv .3gp .ogv .gif .vob .mxf .MP4 .Ts".split(),
)
def test_every_suffix_of_a_video_is_found(tmp_path, suffix):
    from lift.cli import _find_videos

    (tmp_path / f"clip{suffix}").touch()
    (tmp_path / "clip.txt").touch()
    assert _find_videos([tmp_path]) == ([tmp_path / f"clip{suffix}"], [tmp_path / "clip.txt"])


def test_names_that_become_the_same_text_are_told_apart(tmp_path):
    from lift.cli import _video_table

    names = ["caf\\xe9.mp4", os.fsdecode(b"caf\xe9.mp4"), "a.mp4", "a.mp4"]
    table, failed = _video_table([tmp_path / name for name in names])
    assert [Path(name).name for name in table["clip_id"]] == ["caf\\xe9.mp4", "a.mp4"]
    assert len(failed) == 1 and "rename one" in next(iter(failed.values()))


def test_training_and_probing_name_the_clips_that_are_lacking(store, benchmark, model, tmp_path):
    table = pd.read_csv(benchmark / "clips.csv")
    extra = table[table["split"] == "train"].head(2).assign(clip_id=["not-there-1", "not-there-2"])
    pd.concat([table, extra]).to_csv(tmp_path / "clips.csv", index=False)
    options = ("--latent-dim", 8, "--depth", 1, "--heads", 2, "--epochs", 1, "--no-progress")
    result = lift("train", store, tmp_path / "out", "--clips", tmp_path / "clips.csv", *options)
    assert result.returncode == 0
    assert "2 of " in result.stderr
    assert "not-there-1, not-there-2" in result.stderr
    assert (
        f"{(table['split'] == 'train').sum()} clips of the split train"
        in (tmp_path / "out" / "README.md").read_text()
    )
    table.assign(clip_id=table["clip_id"] + "-other").to_csv(tmp_path / "others.csv", index=False)
    result = lift("train", store, tmp_path / "none", "--clips", tmp_path / "others.csv", *options)
    assert result.returncode == 1
    assert "others.csv: none of the" in result.stderr
    assert not (tmp_path / "none").exists()
    succeed("embed", store, "--out", tmp_path / "all.parquet", "--model", model)
    result = lift(
        "probe", tmp_path / "all.parquet", tmp_path / "clips.csv", "--out", tmp_path / "results",
        "--json",
    )  # fmt: skip
    assert "2 clips of " in result.stderr and "not-there-1, not-there-2" in result.stderr


def test_embed_names_the_clips_that_the_store_could_not_get(store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    FeatureStore.open(tmp_path / "store").record_failures({"lost-1": "truncated"})
    result = lift("embed", tmp_path / "store", "--out", tmp_path / "e.parquet", "--method", "mean")
    assert result.returncode == 0
    assert (
        "1 clips could not be extracted into the store and have no embedding: lost-1"
        in result.stderr
    )


@pytest.mark.parametrize(
    "option, words",
    [
        (("--latnt-dim", "8"), "--latnt-dim"),
        (("--epochs", "many"), "--epochs"),
        (("--learning-rate", "abc"), "--learning-rate"),
        (("--latent-dim", "[1"), "--latent-dim"),
        (("--workers=-1",), "TrainingConfig.workers"),
    ],
)
def test_a_wrong_training_option_is_named(store, tmp_path, option, words):
    result = lift("train", store, tmp_path / "out", *option)
    assert result.returncode in (1, 2)
    assert words in result.stderr
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in result.stderr


def test_help_lists_every_field_of_the_recipe_with_its_default():
    import dataclasses

    from lift.model import LiFTConfig
    from lift.training import TrainingConfig

    text = lift("train", "--help").stdout
    fields = [field for kind in (LiFTConfig, TrainingConfig) for field in dataclasses.fields(kind)]
    missing = [
        f.name
        for f in fields
        if f"--{f.name.replace('_', '-')}" not in text and f.name not in ("feature_dim", "backbone")
    ]
    assert not missing and "layers of the encoder (default: 4)" in text


def test_a_section_is_read_whole_and_an_unknown_field_of_it_is_named(store, tmp_path):
    path = tmp_path / "tiny.yaml"
    recipe = "model: {latent_dim: 8, heads: 2, depth: 1, epochs: 1}"
    path.write_text(
        f"seed: 7\n{recipe}\nwrong: {{latnt_dim: 8}}\nsynthetic: {{clips: 1, colour: red}}\n"
    )
    succeed(
        "train", store, tmp_path / "out", "--config", path, "--section", "model", "--no-progress"
    )
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert (recipe["training.seed"], recipe["model.depth"]) == ("7", "1")
    wrong = [
        ("train", "wrong", "latnt_dim"),
        ("train", "modle", "no section 'modle'"),
        ("synth", "synthetic", "colour"),
    ]
    for command, section, words in wrong:
        places = (store, tmp_path / "x") if command == "train" else (tmp_path / "x",)
        result = lift(command, *places, "--config", path, "--section", section)
        assert result.returncode == 1
        assert words in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_another_recipe_is_refused_and_replaced_where_that_is_asked(store, tmp_path):
    base = (
        "train", store, tmp_path / "out", "--latent-dim", 8, "--heads", 2, "--depth", 1, "--epochs",
        1, "--no-progress",
    )  # fmt: skip
    succeed(*base)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refused = lift(*base, "--dropout", 0.0)
    assert refused.returncode == 1 and "another model.dropout" in refused.stderr
    succeed(*base, "--dropout", 0.0, "--replace")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine", (
        "only what the command made is deleted"
    )


def test_fit_makes_an_equivariant_code(store, tmp_path):
    succeed("fit", store, tmp_path / "code")
    result = succeed(
        "embed", store, "--out", tmp_path / "e.parquet", "--model", tmp_path / "code", "--json"
    )
    assert result["embedded"] == len(FeatureStore.open(store))
    assert (tmp_path / "code" / "model.safetensors").is_file()


def test_a_fault_of_our_own_keeps_its_traceback(store, tmp_path, monkeypatch):
    from lift import cli, embedding

    def fault(*_, **__):
        raise ValueError("of numpy, say")

    monkeypatch.setattr(embedding, "embed_store", fault)
    monkeypatch.setattr(
        sys, "argv", ["lift", "embed", str(store), "--out", str(tmp_path / "e.parquet")]
    )
    with pytest.raises(ValueError, match="of numpy, say"):
        cli.main()


def test_a_config_file_and_an_option_that_wins_over_it(store, tmp_path):
    (tmp_path / "recipe.yaml").write_text("latent_dim: 8\nheads: 2\ndepth: 1\nepochs: 1\n")
    succeed(
        "train", store, tmp_path / "out", "--config", tmp_path / "recipe.yaml", "--latent-dim", 16,
        "--no-progress",
    )  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["latent_dim"], config["depth"]) == (16, 1)


@pytest.mark.parametrize("content", [b"latent_dim: [1", b"\xff\xfe\x00", b"- latent_dim"])
def test_a_config_file_that_is_none_is_named(store, tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    result = lift("train", store, tmp_path / "out", "--config", tmp_path / "recipe.yaml")
    assert result.returncode == 1
    assert "recipe.yaml: " in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_one_line(benchmark, tmp_path):
    # a process of its own says what imports print, too
    result = lift_alone("extract", benchmark / "clips.csv", tmp_path / "store", "--device", "cuda")
    assert result.returncode == 1
    assert "device 'cuda' cannot be used here" in result.stderr
    assert result.stderr.count("\n") == 1


def test_extract_tells_what_it_does_anew_and_has_a_limit(store, benchmark, tmp_path):
    table = pd.read_csv(benchmark / "clips.csv").iloc[:2].assign(start=[0.0, 0.0], end=[0.5, 0.5])
    table["path"] = [str(benchmark / path) for path in table["path"]]
    table.to_csv(tmp_path / "clips.csv", index=False)
    options = ("--frames", 4, "--verify", "hash", "--json")
    report = succeed("extract", tmp_path / "clips.csv", tmp_path / "store", *options)
    assert report["done"] == 2
    table.assign(end=[0.5, 0.4]).to_csv(tmp_path / "clips.csv", index=False)
    result = lift(
        "extract", tmp_path / "clips.csv", tmp_path / "store", "--frames", 4, "--timeout", 60
    )
    assert result.returncode == 0 and "1 clips done" in result.stdout
    told = f"1 done again because their file or range had changed:\n  {table['clip_id'][1]}: end is 0.4 s, was 0.5 s"
    assert told in result.stdout
    for option, value in (("--verify", "size"), ("--timeout", "0")):
        result = lift(
            "extract", tmp_path / "clips.csv", tmp_path / "store", "--frames", 4, option, value
        )
        assert result.returncode == 1
        assert option.removeprefix("--") in result.stderr
        assert result.stderr.count("\n") == 1


def test_extract_and_embed_take_the_nearest_frame_where_that_is_asked(benchmark, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames, options={"g": "6", "bf": "0"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    (tmp_path / "clips.csv").write_text("clip_id,path,start,end,split,label\na,a.mp4,,,train,x\n")
    arguments = ("extract", tmp_path / "clips.csv", tmp_path / "store", "--frames", 24)
    assert lift(*arguments).returncode == 1
    report = succeed(*arguments, "--on-damage", "nearest", "--json")
    assert report["done"] == 1 and 0 < report["damaged"]["a"] < 24
    options = ("--out", tmp_path / "out.parquet", "--on-damage", "nearest", "--frames", 24)
    result = lift("embed", path, *options)
    assert result.returncode == 0 and "1 clips have frames that stand for damaged" in result.stderr
    result = lift("embed", path, "--out", tmp_path / "out.parquet", "--on-damage", "skip")
    assert result.returncode == 1 and "'nearest'" in result.stderr


def test_a_store_of_another_backbone_is_refused(store, tmp_path):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    result = lift(
        "extract", store.parent / "benchmark" / "clips.csv", store, "--frames", 8, "--backbone",
        "efficientnet_lite1",
    )  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert (
        "name: 'efficientnet_lite0' in the store, 'efficientnet_lite1' asked for" in result.stderr
    )
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_doctor_says_what_is_here():
    result = succeed("doctor", "--json")
    assert result["extras"]["train"] == "ready"
    assert "efficientnet_lite0" in json.dumps(result["backbones"])


def test_mine_writes_the_authors_layout_from_real_annotations(shared, tmp_path):
    result = succeed("mine", "epic", shared / "annotations" / "epic100", tmp_path, "--json")
    assert result["groups"] == 66 and len(list(tmp_path.glob("*.csv"))) == len(result["written"])


def test_mine_takes_pairs_and_nouns_of_ones_own_and_says_what_it_left_out(tmp_path):
    root = make_epic(tmp_path / "epic")
    path = root / "EPIC_100_train.csv"
    path.write_text(path.read_text().replace("00:00:01.00,00:00:01.89", "00:00:01.00,soon"))
    row = path.read_text().splitlines()[3]
    path.write_text(path.read_text() + row.replace("open", "close") + "\n")
    (tmp_path / "pairs.csv").write_text("dataset,forward,reverse\nepic,open,close\n")
    (tmp_path / "nouns.csv").write_text(
        "dataset,group,noun\nepic,thing,plate\nepic,thing,cupboard\n"
    )
    result = lift("mine", "epic", root, tmp_path / "all", "--json")
    assert json.loads(result.stdout)["groups"] == 4
    result = lift(
        "mine", "epic", root, tmp_path / "own", "--json", "--pairs", tmp_path / "pairs.csv",
        "--nouns", tmp_path / "nouns.csv",
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert told["groups"] == 1
    assert told["contradictions"] == 1
    assert list(told["unusable"]) == ["EPIC_100_train.csv row 3 (P01_11_1)"]
    assert (
        "1 rows unusable, the first: EPIC_100_train.csv row 3 (P01_11_1): timestamp 'soon'"
        in result.stderr
    )
    assert "1 clips left out: they have both signs" in result.stderr
    epic = next(
        status
        for status in succeed("doctor", "--data", tmp_path, "--json")["datasets"]
        if status["name"].startswith("EPIC")
    )
    assert epic["unusable"] == 1


def test_mine_and_doctor_refuse_what_is_not_there(tmp_path):
    result = lift("mine", "kinetics", tmp_path, tmp_path / "out")
    assert result.returncode == 1 and "ssv2, epic, charades" in result.stderr
    result = lift("doctor", "--data", tmp_path / "nowhere")
    assert result.returncode == 1 and "not a folder" in result.stderr


def test_doctor_shows_what_each_data_set_lacks(tmp_path):
    datasets = succeed("doctor", "--data", tmp_path, "--json")["datasets"]
    assert len(datasets) == 8 and not any(status["found"] for status in datasets)
    assert all(status["missing"] and status["layout"] and status["licence"] for status in datasets)


def test_doctor_tells_found_incomplete_and_absent_apart(tmp_path):
    make_ucf101(tmp_path / "ucf101")
    make_hmdb51(tmp_path / "hmdb51")
    (tmp_path / "hmdb51" / "wave" / "April_09_u_nm_np1_ba_goo_0.avi").unlink()
    result = lift("doctor", "--data", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {
        line.split()[0]: line for line in result.stdout.split("data sets\n")[1].splitlines()[1:7]
    }
    states = {
        "UCF101": "found",
        "HMDB51": "incomplete",
        "Charades": "absent",
        "Kinetics-400": "absent",
    }
    assert all(state in rows[name] for name, state in states.items())
    assert "about 7 GB" in rows["UCF101"]
    assert "crcv.ucf.edu" in rows["UCF101"]
    assert " 8 " in rows["UCF101"]
    assert "wave/April_09_u_nm_np1_ba_goo_0.avi" in result.stdout
    assert "Charades_v1_480/{id}.mp4" in result.stdout


def test_benchmark_steps_refuse_in_a_line(tmp_path):
    result = subprocess.run(
        [LIFT, "benchmark", "clips", "mini", "--data", tmp_path / "none"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("lift: ")
    assert result.stderr.count("\n") == 1
    assert "no such folder" in result.stderr
