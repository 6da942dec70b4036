"""Ranges of a long video: opened once for all its clips, as extraction does, or once per clip.

A ratio, measured in one run. The video has an hour at 50 frames per second, as EPIC-KITCHENS has
them: one rendered minute, its packets repeated.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from lift.tables import provenance, save_json
from lift.video import VideoFile, read_clip, write_video

RATE = 50
FRAMES = 16


def moving(width: int, height: int, frames: int) -> Iterator[np.ndarray]:
    """Frames `(H, W, 3)` uint8 of a moving pattern, each different."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    for number in range(frames):
        wave = 127 * (1 + np.sin((across + 3 * number) / 40) * np.cos((down + number) / 25))
        yield np.repeat(wave.astype(np.uint8)[..., None], 3, axis=2)


def repeat(source: Path, out: Path, times: int) -> None:
    """The packets of an mp4 one after another, `times` times, nothing encoded again."""
    with av.open(str(out), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                track = container.streams.video[0]
                stream = stream or target.add_stream_from_template(track)
                packets = [packet for packet in container.demux(track) if packet.dts is not None]
                length = max(packet.pts + packet.duration for packet in packets)
                for packet in packets:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    target.mux(packet)
                shift += length


def measure(path: Path, minutes: int, clips: int) -> dict[str, float]:
    """Seconds for `clips` ranges of 2 s, with the video opened once per clip and once for all.

    Both give the same frames.
    """
    starts = np.linspace(1, 60 * minutes - 5, clips).round(2)
    # the decoder is loaded and the file is in memory: neither side pays for it
    read_clip(path, FRAMES, 1, 3)
    began = time.perf_counter()
    reference = [read_clip(path, FRAMES, start, start + 2) for start in starts]
    per_clip = time.perf_counter() - began
    began = time.perf_counter()
    with VideoFile(path) as video:
        ours = [video.read_clip(FRAMES, start, start + 2) for start in starts]
    once = time.perf_counter() - began
    for theirs, frames in zip(reference, ours, strict=True):
        assert np.array_equal(theirs, frames), "other frames"
    times = {"opened_per_clip_seconds": per_clip, "opened_once_seconds": once}
    return {**times, "ratio": per_clip / once}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 360), help="width and height")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "minute.mp4", Path(folder) / "long.mp4"
        write_video(short, moving(*arguments.size, frames=60 * RATE), RATE)
        repeat(short, long, arguments.minutes)
        numbers = measure(long, arguments.minutes, arguments.clips)
        numbers |= {"minutes": arguments.minutes, "clips": arguments.clips}
        numbers["megabytes"] = long.stat().st_size / 1e6
    print(json.dumps(numbers, sort_keys=True))
    numbers["provenance"] = provenance("benchmark", 0)
    save_json(numbers, arguments.out, "benchmark_ranges")


if __name__ == "__main__":
    main()
