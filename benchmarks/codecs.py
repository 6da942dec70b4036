"""Decoding by codec, GOP length, resolution and clip length: clips per second of each decoder.

A moving made-up pattern with noise is encoded, one thing changed at a time from a base of H.264,
one keyframe in 48 frames, 320 x 240 pixels and 5 s at 24 frames per second. Each decoder reads 16
frames of the same files in turn, in one process and on one thread; torchcodec where it is there.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from ranges import moving

from lift.decoding import VideoError
from lift.style import (
    legend_below,
    list_rows,
    log_axis,
    panels,
    save_figure,
    series_keys,
    series_styles,
    set_style,
)
from lift.tables import provenance, save_json, save_table
from lift.video import read_clip, sample_indices, write_video

RATE, FRAMES = 24, 16
ENCODERS = {
    "H.264": "libx264", "H.265": "libx265", "MPEG-4": "mpeg4", "VP9": "libvpx-vp9",
    "AV1": "libsvtav1",
}  # fmt: skip
BASE = {"codec": "H.264", "keyframe every (frames)": 48, "height (pixels)": 240, "length (s)": 5}
LEVELS = {
    "codec": list(ENCODERS),
    "keyframe every (frames)": [1, 12, 48, 240],
    "height (pixels)": [120, 240, 480, 1080],
    "length (s)": [2, 5, 10, 30, 60],
}
Reader = Callable[[Path], object]


def pattern(height: int, seconds: int) -> Iterator[np.ndarray]:
    """Frames `(H, W, 3)` uint8 of a moving pattern under a little noise."""
    width = 2 * (height * 2 // 3)
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    for number, frame in enumerate(moving(width, height, seconds * RATE)):
        yield (frame + np.roll(noise, number, axis=1)).clip(0, 255).astype(np.uint8)


def encode(path: Path, setting: dict) -> Path:
    """The pattern as a video of one setting."""
    frames = pattern(setting["height (pixels)"], setting["length (s)"])
    options = {"g": str(setting["keyframe every (frames)"])}
    return write_video(path, frames, RATE, ENCODERS[setting["codec"]], options)


def by_torchcodec(path: Path) -> object:
    """Frames by torchcodec."""
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
    return video.get_frames_at(sample_indices(len(video), FRAMES).tolist())


def readers() -> dict[str, Reader]:
    """The decoders that are installed."""
    known: dict[str, Reader] = {
        name: partial(read_clip, frames=FRAMES, decoder=name.lower()) for name in ("PyAV", "decord")
    }
    known["torchcodec"] = by_torchcodec
    missing = [name for name in ("decord", "torchcodec") if not find_spec(name)]
    print("not installed, no row of it:", ", ".join(missing) or "none")
    return {name: read for name, read in known.items() if name not in missing}


def can_read(path: Path, name: str, read: Reader) -> bool:
    """Whether a decoder reads a file; what it says is printed where it does not."""
    try:
        read(path)
    except (VideoError, RuntimeError) as error:
        print(f"{name} cannot read {path.name}, no row: {str(error).splitlines()[0]}")
        return False
    return True


def least_seconds(path: Path, decoders: dict[str, Reader], repeats: int) -> dict[str, float]:
    """Least processor seconds of each decoder for a clip, in turn; a first read is not counted."""
    able = {name: read for name, read in decoders.items() if can_read(path, name, read)}
    spent = dict.fromkeys(able, np.inf)
    for _ in range(repeats):
        for name, read in able.items():
            began = time.process_time()
            read(path)
            spent[name] = min(spent[name], time.process_time() - began)
    return spent


def measure(folder: Path, repeats: int) -> pd.DataFrame:
    """One row per factor, level and decoder."""
    # all are encoded before decord is imported: it brings a libvpx that PyAV cannot encode with
    files = {
        (factor, level): encode(folder / f"{factor} {level}.mp4", {**BASE, factor: level})
        for factor, levels in LEVELS.items()
        for level in levels
    }
    decoders, rows = readers(), []
    for (factor, level), path in files.items():
        for name, taken in least_seconds(path, decoders, repeats).items():
            row = {"factor": factor, "level": str(level), "decoder": name}
            rows.append(row | {"clips/s": 1 / taken, "kB": path.stat().st_size / 1000})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame) -> Figure:
    """One panel per factor: clips per second of each decoder, from left (slow) to right."""
    set_style()
    styles = series_styles(table["decoder"])
    figure, axes = panels(len(LEVELS), 2, 4, 2.4)
    for axis, (factor, rows) in zip(axes, table.groupby("factor", sort=False), strict=True):
        levels = list(dict.fromkeys(rows["level"]))
        list_rows(axis, levels)
        for decoder, style in styles.items():
            own = rows[rows["decoder"] == decoder]
            axis.plot(own["clips/s"], list(map(levels.index, own["level"])), linestyle="", **style)
        axis.set(title=factor, xlabel="clips/s", xlim=(0.5, 200))
        axis.grid(axis="both")
        log_axis(axis)
    legend_below(figure, series_keys(styles))
    return figure


def main() -> None:
    """Measure and write `benchmark_codecs.*`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(Path(folder), arguments.repeats)
    base = "H.264, a keyframe every 48 frames, 320 x 240, 5 s"
    caption = (
        f"Clips per second of processor time, 16 frames of each clip, one thread; one thing is "
        f"changed from {base} at {RATE} frames per second. A made-up moving pattern."
    )
    save_table(table, arguments.out, "benchmark_codecs", caption, {"clips/s": 1, "kB": 0})
    save_figure(draw(table), arguments.out, "benchmark_codecs_rates", caption=caption)
    numbers = {"rows": table.to_dict("records"), "provenance": provenance("benchmark", 0)}
    save_json(numbers, arguments.out, "benchmark_codecs")


if __name__ == "__main__":
    main()
