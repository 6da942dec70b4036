"""The class probe at the size of Kinetics-400: its normal equations against gradient descent.

240,000 clips of 1,792 numbers in 400 classes, made up chunk by chunk (class means with noise) and
never all in memory: as float32 they would be 1.7 GB. Both probes see the same chunks. Gradient
descent (logistic regression, scikit-learn's SGDClassifier on standardised features) sees each of
them once per epoch, and has a learning rate and a number of epochs to choose.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import SGDClassifier

from lift.probes import probe_classes
from lift.tables import provenance, save_json

CHUNK = 4096


def chunks(
    first: int, last: int, dim: int, labels: np.ndarray, noise: float
) -> Iterator[pd.DataFrame]:
    """Clips `first` to `last` in tables of `CHUNK` rows `(n, D)` float32, the same in each call."""
    means = np.random.default_rng(0).standard_normal((labels.max() + 1, dim), dtype=np.float32)
    for start in range(first, last, CHUNK):
        ids = range(start, min(start + CHUNK, last))
        values = np.random.default_rng(start).standard_normal((len(ids), dim), dtype=np.float32)
        values *= noise
        values += means[labels[ids.start : ids.stop]]
        index = pd.Index([str(n) for n in ids], name="clip_id")
        yield pd.DataFrame(values, index=index, copy=False)


def peak() -> float:
    """Peak memory of this process so far (MiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def normal_equations(
    clips: pd.DataFrame, labels: np.ndarray, dim: int, noise: float
) -> dict[str, float]:
    """`probe_classes`, and what making the data costs by itself."""
    before, began = peak(), time.perf_counter()
    for _ in chunks(0, len(clips), dim, labels, noise):
        pass
    made, began = time.perf_counter() - began, time.perf_counter()
    results = probe_classes(chunks(0, len(clips), dim, labels, noise), clips, bootstrap=1000)
    seconds = time.perf_counter() - began
    top1, top5 = (results.summary()[name] for name in ("top1", "top5"))
    numbers = {"seconds": seconds, "seconds_to_make_the_data": made}
    return numbers | {"peak_mib": peak(), "peak_before_mib": before, "top1": top1, "top5": top5}


def gradient_descent(
    train: int, total: int, labels: np.ndarray, dim: int, noise: float
) -> dict[str, float]:
    """One epoch of minibatch logistic regression and its top-1 accuracy."""
    model, began = SGDClassifier(loss="log_loss", random_state=0), time.perf_counter()
    scale, classes = np.sqrt(1 + noise**2), np.arange(labels.max() + 1)

    def scaled(first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Standardised clips `(n, D)` and their labels `(n,)`."""
        for chunk in chunks(first, last, dim, labels, noise):
            start = int(chunk.index[0])
            yield chunk.to_numpy() / scale, labels[start : start + len(chunk)]

    for x, y in scaled(0, train):
        model.partial_fit(x, y, classes=classes)
    seconds = time.perf_counter() - began
    right = sum((model.predict(x) == y).sum() for x, y in scaled(train, total))
    return {"seconds_an_epoch": seconds, "top1": 100 * float(right) / (total - train)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    held_out = "training clips; a twelfth as many are held out"
    parser.add_argument("--clips", type=int, default=240_000, help=held_out)
    parser.add_argument("--dim", type=int, default=1792)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--noise", type=float, default=12.0)
    slow = "training clips for gradient descent, which is slow"
    parser.add_argument("--descent-clips", type=int, default=24_000, help=slow)
    arguments = parser.parse_args()
    total = arguments.clips + arguments.clips // 12
    labels = np.random.default_rng(1).integers(arguments.classes, size=total)
    ids = [str(n) for n in range(total)]
    clips = pd.DataFrame({"clip_id": ids, "label": [f"class {n}" for n in labels]})
    clips["split"] = np.where(np.arange(total) < arguments.clips, "train", "test")
    numbers = {"clips": arguments.clips, "held_out": total - arguments.clips}
    numbers |= {"dim": arguments.dim, "classes": arguments.classes}
    numbers["normal_equations"] = normal_equations(clips, labels, arguments.dim, arguments.noise)
    print(json.dumps(numbers, indent=2), flush=True)
    part = arguments.descent_clips
    if part:
        some = np.concatenate([labels[:part], labels[arguments.clips :]])
        descent = gradient_descent(part, len(some), some, arguments.dim, arguments.noise)
        few = clips.iloc[np.r_[0:part, arguments.clips : total]].assign(clip_id=ids[: len(some)])
        exact = normal_equations(few, some, arguments.dim, arguments.noise)
        both = {"gradient_descent": descent, "normal_equations": exact}
        numbers["on_a_part"] = {"clips": part, **both}
        print(json.dumps(numbers["on_a_part"], indent=2))
    numbers["provenance"] = provenance("benchmark", 0)
    save_json(numbers, arguments.out, "benchmark_class_probe")


if __name__ == "__main__":
    main()
