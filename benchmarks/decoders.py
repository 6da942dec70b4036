"""PyAV against decord: the time of `read_clip` per clip, as a ratio measured in one run.

Each clip is read by both decoders, one after the other, and the order changes from clip to clip.
A first read that is not counted brings the file into memory. One process; torch on one thread.
"""

import argparse
import os
import random
import resource
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from lift.tables import provenance, save_json
from lift.video import read_clip

FRAMES = 16
DECODERS = ("decord", "pyav")


def timed_read(path: Path, decoder: str) -> tuple[float, float, np.ndarray]:
    """Wall seconds and user CPU seconds of one read, and the frames `(T, H, W, 3)`."""
    wall, user = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    frames = read_clip(path, FRAMES, decoder=decoder)
    user = resource.getrusage(resource.RUSAGE_SELF).ru_utime - user
    return time.perf_counter() - wall, user, frames


def measure(paths: list[Path]) -> dict[str, float]:
    """Mean milliseconds per clip of both decoders, and PyAV's time divided by decord's."""
    seconds = {decoder: np.zeros(2) for decoder in DECODERS}  # wall, user CPU
    for number, path in enumerate(paths):
        read_clip(path, FRAMES, decoder="pyav")
        frames = {}
        for decoder in DECODERS if number % 2 else reversed(DECODERS):
            *spent, frames[decoder] = timed_read(path, decoder)
            seconds[decoder] += spent
        assert np.array_equal(frames["decord"], frames["pyav"]), f"other pixels: {path}"
    ratios = seconds["pyav"] / seconds["decord"]
    numbers = {"clips": len(paths), "wall_ratio": ratios[0], "user_cpu_ratio": ratios[1]}
    for decoder in DECODERS:
        wall, user = 1000 * seconds[decoder] / len(paths)
        numbers |= {f"{decoder}_wall_ms": wall, f"{decoder}_user_cpu_ms": user}
    return numbers


def chosen(folder: Path, clips: int) -> list[Path]:
    """`clips` videos of a folder at random, the same each time; repeated where there are fewer."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".webm"))
    if not paths:
        raise SystemExit(f"{folder}: holds no .mp4 and no .webm file")
    random.Random(0).shuffle(paths)
    return list(islice(cycle(paths), clips))


def main() -> None:
    """Measure each folder and write `benchmark_decoders.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER", help="folders of videos")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    parser.add_argument("--clips", type=int, default=200, help="clips of each folder")
    arguments = parser.parse_args()
    load, kinds = os.getloadavg()[0], {}
    for name, folder in (given.split("=", 1) for given in arguments.folders):
        kinds[name] = measure(chosen(Path(folder), arguments.clips))
        print(name, {key: round(float(value), 2) for key, value in kinds[name].items()}, flush=True)
    machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
    numbers = {"kinds": kinds, **machine, "provenance": provenance("benchmark", 0)}
    save_json(numbers, arguments.out, "benchmark_decoders")


if __name__ == "__main__":
    main()
