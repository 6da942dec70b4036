"""Make the model that ships with the package out of the one that the demo profile trained: `make default-model`."""

import json
from pathlib import Path

from lift.data.clips import read_clips
from lift.model import PACKAGED_MODEL, LiFT

ROOT = Path(__file__).parents[1]


def main() -> None:
    model = LiFT.from_pretrained(ROOT / "runs" / "demo" / "equivariant")
    clips = read_clips(ROOT / "runs" / "demo" / "synthetic" / "clips.csv")
    train = clips[clips["split"] == "train"]
    accuracy = json.loads((ROOT / "figures" / "demo" / "table2_chiral_accuracy" / "accuracy.json").read_text())["time_symmetric"]
    card = {
        "summary": "A small time-symmetric LiFT of EfficientNet-Lite0 features, fitted to rendered videos: for trying things out. Its two "
        "codes are even and odd under time reversal, exactly; see the notebook 01_symmetry.",
        "training_data": f"{len(train)} rendered clips of {train['group'].nunique()} chiral groups (`lift synth`, difficulty easy); "
        "no real video",
        "profile": "demo (params/demo.yaml)",
        "metrics": f"chiral accuracy {accuracy['mean']:.1f} % [{accuracy['low']:.1f}, {accuracy['high']:.1f}] on the validation "
        "clips of the same synthetic benchmark, chance 50 %; see figures/demo for the baselines beside it",
        "good_for": "trying the pipeline on any machine, without a model hub",
        "not_good_for": "conclusions about real videos, features of any other backbone, more than one event in a clip",
    }
    (PACKAGED_MODEL / "README.md").unlink(missing_ok=True)  # a card that is there would be kept
    model.half().save_pretrained(PACKAGED_MODEL, model_card_kwargs=card)
    (PACKAGED_MODEL / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
