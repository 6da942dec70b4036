"""Encoders of real size with random weights on a GPU: clips/s, memory, precision, a probe's step.

`python benchmarks/gpu.py` takes some minutes and writes figures/gpu.md with the name of the card.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cosine_similarity

from lift.backbones import create_backbone
from lift.classifiers import AttentiveProbe
from lift.costs import clip_cost
from lift.tables import save_table

NAMES = ["vjepa2_large_256", "videomae_large", "dinov2_vitl14_reg"]


def parser() -> argparse.ArgumentParser:
    """The options of this script."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--names", nargs="+", default=NAMES, help="rows of lift doctor")
    options.add_argument("--device", default="cuda")
    options.add_argument("--clips", type=int, default=8, help="clips per batch")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("figures"))
    return options


def card(device: str) -> str:
    """The name of the device."""
    return torch.cuda.get_device_name() if device == "cuda" else f"no GPU: {device}"


def seconds(
    backbone: torch.nn.Module, batch: torch.Tensor, rounds: int
) -> tuple[float, torch.Tensor]:
    """Median seconds of a batch, and its features on the CPU."""
    taken, features = [], backbone(batch).cpu()  # warms up; the copy waits for the GPU
    for _ in range(rounds):
        started = time.perf_counter()
        features = backbone(batch).cpu()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2], features


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """One row: an encoder in float32 and in bfloat16, on the same frames."""
    row, features = {"encoder": name}, {}
    for precision in ("float32", "bfloat16"):
        backbone = create_backbone(name, "random", options.device, precision)
        frames, size = backbone.frames or 16, backbone.input_size
        generator = torch.Generator().manual_seed(0)
        shape = (options.clips, frames, 3, size, size)
        batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken, features[precision] = seconds(backbone, batch, options.rounds)
        row[f"clips/s, {precision}"] = options.clips / taken
        if options.device == "cuda":
            row[f"GiB, {precision}"] = torch.cuda.max_memory_allocated() / 2**30
        if precision == "float32":
            cost = clip_cost(backbone)
            row |= {"parameters (M)": cost["parameters"] / 1e6, "GFLOPs per clip": cost["gflops"]}
        row[f"TFLOP/s, {precision}"] = row["GFLOPs per clip"] * options.clips / taken / 1000
    row["least cosine"] = float(cosine_similarity(*features.values(), dim=-1).min())
    return row


def probe_step(options: argparse.Namespace, tokens: int = 1568, dim: int = 1024) -> float:
    """Seconds per training step of V-JEPA 2's probe on 16 clips of random tokens."""
    x = torch.randn(16, tokens, dim, generator=torch.Generator().manual_seed(0))
    labels = [str(n % 2) for n in range(16)]
    steps = 10
    probe = AttentiveProbe(batch_size=16, epochs=1, min_steps=steps, device=options.device)
    probe.fit(x[:, :8], labels)  # warms up
    started = time.perf_counter()
    probe.fit(x, labels)
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Measure all, and write one page."""
    options = parser().parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no GPU here; --device cpu tries the script itself, slowly")
    table = pd.DataFrame([measure(name, options) for name in options.names])
    step = probe_step(options) if options.device == "cuda" else probe_step(options, 16, 32)
    caption = (
        f"{card(options.device)}: encoders of real size with random weights, {options.clips} "
        "random clips per batch, the copy to the device included. Least cosine: bfloat16 against "
        "float32, over all features. A training step of the attentive probe on 16 clips: "
        f"{step:.3f} s."
    )
    save_table(table, options.out, "gpu", caption, digits=4)
    print(table.round(3).to_string(index=False), caption, sep="\n")


if __name__ == "__main__":
    main()
