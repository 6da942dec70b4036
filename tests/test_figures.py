"""Figures: the same bytes twice, nothing clipped or overlapping, faults named before anything is drawn."""

import io
import itertools
import os
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from lift import figures
from lift.scores import score_panels

GROUPS = [f"opening / closing thing number {number}" for number in range(16)]
METHODS = [f"method {number} of eight" for number in range(8)]


@pytest.fixture(autouse=True)
def style():
    figures.set_style()
    yield
    plt.close("all")
    matplotlib.rcdefaults()


def paths(clips: int = 3) -> pd.DataFrame:
    time = np.linspace(0, 1, 8)
    parts = [
        pd.DataFrame(
            {
                "clip": f"c{i}",
                "label": f"label {i}",
                "time": time,
                "x": np.cos(time + i),
                "y": np.sin(time),
            }
        )
        for i in range(clips)
    ]
    return pd.concat(parts, ignore_index=True)


def accuracies() -> pd.DataFrame:
    table = pd.DataFrame(itertools.product(METHODS, GROUPS), columns=["method", "group"])
    table["accuracy"] = np.linspace(40, 99, len(table))
    return table.assign(low=table["accuracy"] - 5, high=table["accuracy"] + 1)


def models(count: int = 12) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "model": [f"model number {i}" for i in range(count)],
            "accuracy": generator.uniform(60, 80, count),
            "low": 58.0,
            "high": 82.0,
            "parameters_millions": np.geomspace(4, 400, count),
            "dimension": generator.integers(64, 20000, count),
            "source": ["this work", "published"] * (count // 2),
        }
    )


def scatter() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = itertools.product(
        ["mean", "LiFT"], ["opening", "closing"], ["train", "validation"], range(5)
    )
    table = pd.DataFrame(rows, columns=["method", "label", "split", "clip"])
    return table.assign(x=generator.normal(size=len(table)), y=generator.normal(size=len(table)))


def means() -> pd.DataFrame:
    return pd.DataFrame(
        {"method": METHODS, "mean": 70.0, "low": 68.0, "high": 72.0, "dimension": 768}
    )


TABLES = {
    "trajectories": paths(),
    "reconstruction": pd.concat([paths().assign(kind="feature"), paths().assign(kind="reconstruction")]),
    "embedding_scatter": scatter(),
    "curvature_plot": pd.DataFrame(
        {"space": ["pixels", "the latent line of LiFT"] * 6, "variant": ["natural"] * 6 + ["shuffled"] * 6,
         "straightness": 1 / np.arange(1, 13), "curvature_degrees": np.arange(12.0)}
    ),
    "group_accuracy": accuracies(),
    "mean_accuracy": means(),
    "accuracy_parameters": models(),
    "ablation": pd.DataFrame(
        {"factor": ["loss", "loss", "frames"] * 2, "level": ["all", "none", 4] * 2, "measure": ["accuracy (%)"] * 3 + ["error"] * 3,
         "mean": 70.0, "low": 68.0, "high": 72.0}
    ),
    "learning_curve": pd.concat([means().assign(clips_per_class=size) for size in (1, 10, 100)]),
    "training_curves": pd.DataFrame(
        {"epoch": [0, 1] * 4, "split": ["train", "train", "validation", "validation"] * 2,
         "loss": ["reconstruction"] * 4 + ["orthogonality"] * 4, "value": np.arange(8.0)}
    ),
    "accuracy_group_size": pd.DataFrame(
        {"dataset": ["A", "B"] * 4, "group": range(8), "n_test": [1, 2, 5, 9, 20, 50, 90, 300], "accuracy": 70.0}
    ),
    "benchmark_ratios": pd.DataFrame(
        {"task": ["decoding", "memory"], "ratio": [3, 0.5], "ours": [1.0, 2.0], "reference": [3.0, 1.0], "unit": "s"}
    ),
}  # fmt: skip


@pytest.fixture(params=TABLES)
def drawn(request) -> plt.Figure:
    return getattr(figures, request.param)(TABLES[request.param])


def test_every_plot_is_tested():
    plots = set(figures.__all__) - {"PALETTE", "set_style", "save_figure", "gallery"}
    assert plots == {*TABLES, "film_strips", "line_slider", "nearest_along"}


def test_nothing_is_clipped_and_no_text_is_tiny(drawn, tmp_path):
    figures.save_figure(drawn, tmp_path, "plot", "A plot.")
    pixels = plt.imread(tmp_path / "plot.png")[..., :3]
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert all((edge == 1).all() for edge in edges), (
        "ink at the edge of the figure: something goes over it"
    )
    assert (
        min(text.get_fontsize() for text in drawn.findobj(matplotlib.text.Text) if text.get_text())
        >= 9
    )


def test_a_clipped_text_would_leave_ink_at_the_edge(tmp_path):
    figure = plt.figure(figsize=(2, 2))
    figure.text(0.7, 0.5, "too long to fit")
    figures.save_figure(figure, tmp_path, "plot", "A plot.")
    assert (plt.imread(tmp_path / "plot.png")[:, -2:, :3] < 1).any()


def test_the_tick_labels_of_an_axis_do_not_overlap(drawn):
    drawn.draw_without_rendering()
    for axis in drawn.axes:
        for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            for first, second in itertools.pairwise(boxes):
                assert not first.overlaps(second), (first, second)


def test_every_axis_says_what_it_is(drawn):
    named_columns = [label.get_text() for axis in drawn.axes for label in axis.get_xticklabels()]
    assert any(axis.get_xlabel() for axis in drawn.axes) or "pixels" in named_columns
    for axis in drawn.axes:
        # the first panel of a row names its levels for all
        row = axis.get_shared_y_axes().get_siblings(axis)
        assert any(
            panel.get_ylabel() or any(label.get_text() for label in panel.get_yticklabels())
            for panel in row
        )


@pytest.mark.parametrize("name", [name for name in TABLES if name != "training_curves"])
def test_a_missing_column_is_named(name):
    table = TABLES[name]
    needed = "unit" if name == "benchmark_ratios" else ("y" if "y" in table else table.columns[-1])
    with pytest.raises(ValueError, match=rf"{name} needs .*lacks .*{needed}"):
        getattr(figures, name)(table.drop(columns=needed))


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_is_refused(name):
    with pytest.raises(ValueError, match="no row"):
        getattr(figures, name)(TABLES[name].iloc[:0])


def test_the_same_figure_is_the_same_bytes(tmp_path):
    first = figures.trajectories(TABLES["trajectories"])
    figures.save_figure(first, tmp_path / "a", "plot", "Caption.")
    figures.save_figure(first, tmp_path / "a_again", "plot", "Caption.")
    figures.save_figure(
        figures.trajectories(TABLES["trajectories"]), tmp_path / "b", "plot", "Caption."
    )
    for kind in ("png", "svg", "md"):
        files = [
            (tmp_path / folder / f"plot.{kind}").read_bytes() for folder in ("a", "a_again", "b")
        ]
        assert files[0] == files[1] == files[2], kind


def test_bytes_do_not_depend_on_the_process(tmp_path):
    code = (
        "import sys; import pandas as pd; from lift.figures import curvature_plot, save_figure, set_style; set_style();"
        "table = pd.DataFrame({'space': ['a'] * 9, 'variant': ['n'] * 9, 'curvature_degrees': range(9)});"
        "save_figure(curvature_plot(table), sys.argv[1], 'plot', 'Caption.')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "MPLBACKEND": "Agg"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=environment
    )
    table = pd.DataFrame({"space": ["a"] * 9, "variant": ["n"] * 9, "curvature_degrees": range(9)})
    figures.save_figure(figures.curvature_plot(table), tmp_path / "here", "plot", "Caption.")
    for kind in ("png", "svg"):
        assert (tmp_path / "here" / f"plot.{kind}").read_bytes() == (
            tmp_path / "there" / f"plot.{kind}"
        ).read_bytes()


def test_text_stays_text_and_files_name_no_date(tmp_path):
    figures.save_figure(
        figures.mean_accuracy(TABLES["mean_accuracy"]), tmp_path, "plot", "  What one sees.\n"
    )
    svg = (tmp_path / "plot.svg").read_text()
    assert "method 3 of eight (768-D)" in svg and "<dc:date>" not in svg and "Matplotlib" not in svg
    assert b"Software" not in (tmp_path / "plot.png").read_bytes()
    assert (tmp_path / "plot.md").read_text() == "What one sees.\n"


@pytest.mark.parametrize(("name", "caption"), [("a/b", "x"), ("plot", "  "), ("../plot", "x")])
def test_a_bad_name_or_an_empty_caption_is_refused(tmp_path, name, caption):
    with pytest.raises(ValueError, match="caption"):
        figures.save_figure(plt.figure(), tmp_path / "out", name, caption)
    assert not (tmp_path / "out").exists()


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_series_differ_in_colour_and_marker_and_show_on_white():
    from lift.style import series_styles

    styles = series_styles(METHODS)
    for part in ("color", "marker"):
        assert len({style[part] for style in styles.values()}) == 8
    assert all(1.05 / (luminance(style["color"]) + 0.05) > 1.9 for style in styles.values())
    many = series_styles(map(str, range(30)))
    assert len({tuple(style.values()) for style in many.values()}) == 30
    assert list(series_styles(["b", "a", "b"])) == ["b", "a"]


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_models_cover_no_other_label(seed):
    table = models()
    table["accuracy"] = np.random.default_rng(seed).uniform(50, 80, len(table))
    table["low"], table["high"] = table["accuracy"] - 2, table["accuracy"] + 2
    figure = figures.accuracy_parameters(table)
    boxes = [note.get_window_extent() for note in figure.axes[0].texts]
    assert len(boxes) == len(table)
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)


def test_models_without_interval_and_integer_extension_columns_are_drawn():
    table = models().assign(low=None, high=None).astype({"dimension": "Int64"})
    assert len(figures.accuracy_parameters(table).axes[0].texts) == len(table)
    with pytest.raises(ValueError, match="rumour"):
        figures.accuracy_parameters(table.assign(source="rumour"))


def test_published_models_have_another_marker_and_say_that_the_data_differ():
    figure = figures.accuracy_parameters(models())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["this work", "published, on other data"]


def test_film_strips_hold_the_frames_in_order():
    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full(
        (4, 6, 60, 3), 10, np.uint8
    )
    figure = figures.film_strips([("a", frames), ("b", frames[::-1])])
    first, second = (np.asarray(axis.images[0].get_array()) for axis in figure.axes)
    assert first.shape == (6, 4 * 60 + 3 * 2, 3)
    assert list(first[0, ::62, 0]) == [0, 10, 20, 30]
    assert list(second[0, ::62, 0]) == [30, 20, 10, 0]


@pytest.mark.parametrize("frames", [np.zeros((3, 4, 5), np.uint8), np.zeros((2, 4, 5, 3))])
def test_film_strips_name_the_bad_clip(frames):
    with pytest.raises(ValueError, match="'bad'"):
        figures.film_strips([("bad", frames)])
    with pytest.raises(ValueError, match="at least one"):
        figures.film_strips([])


def test_reconstruction_needs_both_kinds_of_each_clip():
    both = TABLES["reconstruction"]
    for table in (
        both[both["kind"] == "feature"],
        both.assign(kind="guess"),
        both.iloc[: len(both) // 2 + 8],
    ):
        with pytest.raises(ValueError, match="of every clip"):
            figures.reconstruction(table)


def test_trajectories_run_in_order_of_time():
    table = paths(1).sample(frac=1, random_state=0)
    figure = figures.trajectories(table)
    times = figure.axes[0].collections[0].get_array()
    assert list(times) == sorted(times)
    start = figure.axes[0].lines[0]
    assert start.get_xdata()[0] == pytest.approx(1.0)  # x = cos(0) where time is 0


def test_the_chance_funnel_holds_95_percent_of_coins():
    figure = figures.accuracy_group_size(TABLES["accuracy_group_size"])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    at_100 = band[np.abs(band[:, 0] - 100).argsort()[:2], 1]
    coins = 100 * np.random.default_rng(0).binomial(100, 0.5, 20000) / 100
    assert 0.94 < np.mean((coins >= at_100.min()) & (coins <= at_100.max())) < 0.98


def test_the_mean_of_the_curvature_has_a_t_interval():
    values = np.array([80.0, 90.0, 100.0, 110.0])
    figure = figures.curvature_plot(
        pd.DataFrame({"space": "s", "variant": "v", "curvature_degrees": values})
    )
    (segment,) = figure.axes[0].collections[1].get_segments()
    reach = 3.182446 * values.std(ddof=1) / 2
    assert segment[:, 1] == pytest.approx([95 - reach, 95 + reach], rel=1e-5)


def test_a_gallery_shows_all_in_order_and_is_reproducible(tmp_path):
    from lift.tables import save_json, save_table

    for notebook in ("01_model", "actions", "droid_probes", "figure2_b", "figure1_a"):
        figures.save_figure(plt.figure(), tmp_path / notebook, "plot", f"Caption of {notebook}.")
    accuracy = pd.DataFrame({"model": ["LiFT"], "accuracy": [77.0]})
    save_table(accuracy, tmp_path / "table1", "accuracy", "A table.")
    save_json({"profile": "smoke"}, tmp_path / "table1", "provenance")
    (tmp_path / "empty").mkdir()
    page = figures.gallery(tmp_path).read_text()
    order = [line.split()[1] for line in page.splitlines() if line.startswith("### ")]
    assert order == ["figure1_a", "figure2_b", "table1", "droid_probes", "actions", "01_model"]
    assert "![plot](figure1_a/plot.png)\n\nCaption of figure1_a." in page, "the caption is below"
    assert "77.0" in page and "(table1/accuracy.csv)" in page and "(table1/provenance.json)" in page
    assert "empty" not in page
    assert figures.gallery(tmp_path).read_text() == page


def test_a_gallery_inside_a_checkout_says_what_made_each_figure(tmp_path):
    from lift.tables import save_json

    (tmp_path / "Snakefile").touch()
    gallery = tmp_path / "figures" / "demo"
    for notebook in ("01_model", "actions"):
        figures.save_figure(plt.figure(), gallery / notebook, "plot", "A caption.")
    made = {"profile": "demo", "seed": 3, "commit": "0123456789-dirty", "versions": {}}
    save_json(made, gallery / "actions", "provenance")
    page = figures.gallery(gallery).read_text()
    assert "Made by [the notebook](../../nbs/01_model.ipynb)." in page
    facts = "commit `0123456` with changes, [profile demo](../../config/demo.yaml), seed 3"
    assert f"(../../nbs/paper/actions.ipynb): {facts}, [versions](actions/provenance.json)" in page
    assert "Again: `make reproduce PROFILE=demo ONLY=actions`" in page


def test_a_gallery_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the notebooks"):
        figures.gallery(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_without_matplotlib_the_extra_is_named():
    code = "import sys; sys.modules['matplotlib'] = None; import lift.figures"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert 'pip install "lift[plot]"' in result.stderr.replace("\\", "")


def test_a_method_that_stands_twice_in_a_panel_is_named():
    row = {
        "panel": "sign", "method": "mean", "score": 50.0, "low": 45.0, "high": 55.0, "chance": 50.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="'mean' stands twice in the panel 'sign'"):
        score_panels(pd.DataFrame([row, row]), "accuracy (%)")


def test_nearest_along_finds_the_frame_of_each_point_whatever_the_decoder_shrinks():
    generator = np.random.default_rng(0)
    curve = np.linspace(0, 1, 9)[:, None] * generator.normal(size=5)  # (9, 5)
    line = generator.normal(size=5) + 0.01 * curve
    assert list(figures.nearest_along(curve, line)) == list(range(9))
    assert list(figures.nearest_along(curve, line[::-1])) == list(range(9))[::-1]
    assert set(figures.nearest_along(np.ones((9, 5)), line)) == {0}  # a clip in which nothing moves
    for wrong in (line[:, :4], line[0], line[:1]):
        with pytest.raises(ValueError, match="nearest_along needs"):
            figures.nearest_along(curve, wrong)


WALKS = {"forwards": np.array([0, 1, 3]), "backwards": np.array([3, 1, 0])}
CLIP = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((4, 6, 60, 3), 10, np.uint8)


def test_a_slider_shows_the_frame_of_its_step(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.delenv("IN_TEST", raising=False)
    slider, _, forwards, _, backwards = figures.line_slider(CLIP, WALKS).children
    for value, numbers in ((0, (0, 3)), (0.5, (1, 1)), (1, (3, 0))):
        slider.value = value
        for strip, number in zip((forwards, backwards), numbers, strict=True):
            shown = plt.imread(io.BytesIO(strip.value), format="png")[0, ::62, 0] * 255
            assert [n for n in range(4) if round(shown[n]) == 10 * n] == [number]


@pytest.mark.parametrize("without", ["a reader", "ipywidgets"])
def test_a_figure_takes_the_place_of_a_slider(monkeypatch, without):
    monkeypatch.setenv("IN_TEST", "1" if without == "a reader" else "")
    if without == "ipywidgets":
        monkeypatch.setattr(figures, "find_spec", lambda name: None)
    figure = figures.line_slider(CLIP, WALKS, steps=3)
    clip, forwards, backwards = (
        np.asarray(axis.images[0].get_array())[0, ::62, 0] for axis in figure.axes
    )
    assert (list(clip), list(forwards)) == ([0, 10, 20, 30], [0, 10, 30])
    assert list(backwards) == [30, 10, 0] and not plt.get_fignums()


@pytest.mark.parametrize(
    "walks", [{}, {"a": np.array([0])}, {"a": np.arange(3), "b": np.arange(2)}]
)
def test_a_slider_needs_walks_of_one_length(walks):
    with pytest.raises(ValueError, match="walks of one length"):
        figures.line_slider(CLIP, walks)
