"""How much memory a probe of tokens takes at the size of Kinetics-400: random numbers, streamed.

240,000 clips of 8 x 768 numbers in 400 classes, drawn when they are asked for and kept nowhere: in
float16 they would be 2.9 GB. One pass of training reads every clip once, then the probe scores the
held-out clips. What it says of random numbers is of no interest; how far the memory of the process
rises is (Linux counts it). The run fails where that is more than `--bound`.
"""

import argparse
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from lift.classifiers import AttentiveProbe, EfficientProbe
from lift.tables import provenance, save_json

PROBES = {"efficient": EfficientProbe, "attentive": AttentiveProbe}


class RandomStore:
    """What a probe needs of a store: the tokens of a clip are random, and follow from its id."""

    description, sampling = {"name": "random numbers"}, None

    def __init__(self, frames: int, dim: int):
        self.frames, self.dim, self.read_clips = frames, dim, 0

    def read(self, ids: Iterable[str]) -> torch.Tensor:
        """Tokens `(N, T, D)` float32 of float16 random numbers."""
        shape, ids = (self.frames, self.dim), list(ids)
        self.read_clips += len(ids)
        clips = [
            np.random.default_rng(crc32(name.encode())).standard_normal(shape, dtype=np.float32)
            for name in ids
        ]
        return torch.from_numpy(np.stack(clips)).half().float()


class Growth:
    """How far the memory of this process rises inside a `with` block: `mib`, above `before_mib`."""

    def __enter__(self) -> "Growth":
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        self.before_mib = self._mib("VmRSS")
        return self

    def so_far(self) -> float:
        """The growth up to now (MiB)."""
        return self._mib("VmHWM") - self.before_mib

    def __exit__(self, *error: object) -> None:
        self.mib = self.so_far()

    def _mib(self, name: str) -> float:
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


def warm_up(probe: EfficientProbe | AttentiveProbe, store: RandomStore, classes: int) -> None:
    """Fit one batch of clips: what torch and the network itself take is no growth."""
    size = max(probe.batch_size, classes)
    ids = [f"warm-up {n}" for n in range(size)]
    probe.fit_store(store, ids, np.arange(size) % classes).predict_store(store, ids)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Growth of memory over one fit and one scoring of random clips, and seconds."""
    store = RandomStore(arguments.frames, arguments.dim)
    settings = {"epochs": 1, "min_steps": arguments.min_steps, "device": "cpu"}
    probe = PROBES[arguments.probe](batch_size=arguments.batch_size, **settings)
    warm_up(probe, store, arguments.classes)
    store.read_clips, began = 0, time.perf_counter()
    with Growth() as growth:
        ids = [f"{n}" for n in range(arguments.clips + arguments.held)]
        labels = np.random.default_rng(0).integers(arguments.classes, size=arguments.clips)
        probe.fit_store(store, ids[: arguments.clips], labels)
        fitted = growth.so_far()
        probe.predict_store(store, ids[arguments.clips :])
    return {
        "clips_read": store.read_clips,
        "before_mib": round(growth.before_mib, 1),
        "growth_of_fit_mib": round(fitted, 1),
        "growth_mib": round(growth.mib, 1),
        "features_mib": round(len(ids) * arguments.frames * arguments.dim * 2 / 2**20, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=240_000, help="training clips, each read once")
    parser.add_argument("--held", type=int, default=20_000, help="clips that are scored")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--probe", choices=list(PROBES), default="efficient")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--min-steps", type=int, default=1)
    parser.add_argument("--bound", type=float, default=256, help="MiB that memory may rise by")
    parser.add_argument(
        "--out", default="figures", help="folder for benchmark_token_probe_memory.json"
    )
    return parser


def main() -> None:
    arguments = parser().parse_args()
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    numbers = {"data": "random numbers", **settings, **measure(arguments)}
    print(json.dumps(numbers, indent=2))
    numbers["provenance"] = provenance("benchmark", 0)
    save_json(numbers, Path(arguments.out), "benchmark_token_probe_memory")
    if numbers["growth_mib"] > arguments.bound:
        raise SystemExit(
            f"memory rose by {numbers['growth_mib']} MiB, more than {arguments.bound} MiB"
        )


if __name__ == "__main__":
    main()
