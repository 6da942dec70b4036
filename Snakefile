"""The whole reproduction: `make reproduce PROFILE=demo`. Every job is a command that one can type.

clips -> features -> model, code -> notebooks -> gallery. `config/PROFILE.yaml` says what each step does.
"""

import functools, json, os, re, sys
from pathlib import Path

sys.path.insert(0, "tools")
from made_with import made_with

PROFILE = config["profile"]
RUN, CONFIG, DATA = f"runs/{PROFILE}", f"config/{PROFILE}.yaml", os.environ.get("LIFT_DATA", "")
REAL = "real" in config
FEATURES = f"{RUN}/features.txt" if REAL else f"{RUN}/features.json"
STUDY = config.get("study", {})
ABLATION = config.get("ablation", {"variants": {}, "seeds": 0})
LEVELS = [f"{RUN}/{level}" for level in config.get("levels", {})]
TYPED = map(str, [PROFILE, config["gallery"], config["seed"], *LEVELS, *STUDY, *ABLATION["variants"]])  # parts of shell commands
if wrong := [name for name in TYPED if not re.fullmatch(r"(?!/|.*\.\.)[\w./+-]+", name)]:
    sys.exit(f"{wrong[0]!r}: names in a profile have letters, digits and . / + - _ only, and stay in this folder")
OWN = {"features": ("lift/extraction.py",), "model": ("lift/training.py", "lift/equivariant.py"), "bases": ("lift/extraction.py",)}  # what empties a step's folder
STEPS = {"clips": "clips", "features": "features", "model": "models", "embeddings": "embeddings", "results": "results"}
STEPS |= {"bases": "bases", "combinations": "combinations"} if "bases" in config else {}

NOTEBOOKS = {
    "paper": """table1_benchmark_statistics figure1_feature_trajectories figure2_reconstruction figure3_chiral_pair
        figure4_curvature table2_chiral_accuracy figure5_group_size_noise""",
    "beyond": "equivariant_code time_symmetry diagnosis learning_curves retrieval actions probes_and_scalers",
    "ablations": " ".join(path.stem for path in sorted(Path("nbs/paper").glob("ablation_*.ipynb"))),
    "real": "table4_real_benchmark_statistics table5_real_chiral_accuracy table6_standard_benchmarks figure5_group_size_noise",
    "claims": "bases_and_codes bases_and_probes accuracy_and_cost gallery_retrieval",
    "droid": "droid_chiral_accuracy droid_learning_curve droid_retrieval droid_film_strips droid_probes",
    "library": " ".join(path.stem for path in sorted(Path("nbs").glob("*.ipynb"))),
    "drawing": " ".join(p.stem for p in sorted(Path("nbs").glob("*.ipynb")) if "figures_dir" in p.read_text()),
    "tutorials": " ".join(path.stem for path in sorted(Path("nbs/tutorials").glob("*.ipynb"))),
}
CHOSEN = dict.fromkeys(name for entry in config["notebooks"] for name in NOTEBOOKS.get(entry, entry).split())
if ABLATION["variants"] and REAL and DATA and not Path(DATA, ABLATION["benchmark"].removeprefix("cia-")).is_dir():
    left_out = [CHOSEN.pop(name) or name for name in list(CHOSEN) if name.startswith("ablation")]
    print(f"not available here, because {DATA} has no {ABLATION['benchmark']}: {', '.join(left_out)}", file=sys.stderr)
PACKAGED = [str(path) for path in sorted(Path("lift").rglob("*")) if path.suffix in (".json", ".csv", ".md", ".safetensors")]
PATHS = {path.stem: path for folder in ("nbs", "nbs/paper", "nbs/tutorials") for path in Path(folder).glob("*.ipynb")}

def section(name):
    """A section of the profile as text, with the seed."""
    fields = functools.reduce(dict.__getitem__, name.split("."), config)
    return json.dumps([fields, config["seed"]], sort_keys=True)

def of_level(folder, name):
    """A section of the profile, or of one of its levels of difficulty."""
    return name if folder == RUN else f"levels.{Path(folder).name}.{name}"

def fresh(folder):
    """Shell: empty a folder that other code or settings made; a killed job resumes in its own."""
    mark = f"{folder}/.made_with"
    return f'[ "$(cat {mark} 2>/dev/null)" = {{params.made_with}} ] || rm -rf {folder}; mkdir -p {folder}; echo {{params.made_with}} > {mark}; '

def products(wildcards):
    """What a notebook reads."""
    if wildcards.name in NOTEBOOKS["library"].split() or PATHS[wildcards.name].parent.name == "tutorials":
        return []
    if REAL and not wildcards.name.startswith("ablation"):
        return f"{RUN}/{[*STEPS][-1]}.txt"
    if wildcards.name.startswith("ablation"):
        return [f"{RUN}/ablation/{name}-{seed}/measurements.csv" for name in ABLATION["variants"] for seed in range(ABLATION["seeds"])]
    study = [f"{RUN}/study/{name}/model.safetensors" for name in STUDY if wildcards.name.startswith("lift_")]
    if wildcards.name == "lift_choice":
        return study
    read = study + [f"{RUN}/{name}" for name in ("features.json", "model/model.safetensors", "equivariant/model.safetensors")]
    return read + [f"{folder}/features.json" for folder in LEVELS if wildcards.name in ("hard_clips", "learning_curves")]

def features_of(variant):
    """The features that a variant of the ablations needs."""
    backbone = (ABLATION["variants"][variant] or {}).get("backbone", config["features"]["backbone"])
    return FEATURES if backbone == config["features"]["backbone"] else f"{RUN}/backbones/{backbone}.txt"


wildcard_constraints:
    folder="|".join([RUN, *LEVELS]), step="|".join(STEPS), training="model|study/[^/]+", seed="[0-9]+", name="[^/]+",

rule gallery:
    input:
        expand(f"{RUN}/notebooks/{{name}}.ipynb", name=CHOSEN),
    output:
        f"{config['gallery']}/README.md",
    params:
        made_with=made_with("lift/style.py"),
    shell:
        f"rm -rf {config['gallery']}; mkdir -p $(dirname {config['gallery']}); cp -r {RUN}/figures {config['gallery']}; "
        f"find {config['gallery']} -name .snakemake_timestamp -delete; "
        f"python -c \"from lift.style import gallery; gallery('{config['gallery']}')\""

rule clips:
    output:
        "{folder}/synthetic/clips.csv",
    params:
        name=lambda w: of_level(w.folder, "synthetic"),
        made_with=lambda w: made_with("lift/data/synthetic.py", settings=section(of_level(w.folder, "synthetic"))),
    threads: 64  # all that there are
    priority: 4
    shell:
        fresh("{wildcards.folder}/synthetic") + f"lift synth {{wildcards.folder}}/synthetic --config {CONFIG} --section {{params.name}}"

rule features:
    input:
        "{folder}/synthetic/clips.csv",
    output:
        "{folder}/features.json",
    params:
        name=lambda w: of_level(w.folder, "features"),
        made_with=lambda w: made_with("lift/extraction.py", settings=section(of_level(w.folder, "features"))),
    threads: 64  # all that there are
    priority: 3
    shell:
        fresh("{wildcards.folder}/store")
        + f"lift extract {{input}} {{wildcards.folder}}/store --config {CONFIG} --section {{params.name}} --json > {{output}}"

rule model:
    input:
        f"{RUN}/features.json",
    output:
        f"{RUN}/{{training}}/model.safetensors",
    params:
        name=lambda w: w.training.replace("/", "."),
        made_with=lambda w: made_with("lift/training.py", settings=section(w.training.replace("/", "."))),
    priority: 2
    shell:
        fresh(f"{RUN}/{{wildcards.training}}")
        + f"lift train {RUN}/store {RUN}/{{wildcards.training}} --clips {RUN}/synthetic/clips.csv --replace --no-progress "
        f"--config {CONFIG} --section {{params.name}}"

rule code:
    input:
        f"{RUN}/features.json",
    output:
        f"{RUN}/equivariant/model.safetensors",
    params:
        made_with=made_with("lift/equivariant.py"),
    priority: 1
    shell:
        f"lift fit {RUN}/store {RUN}/equivariant --clips {RUN}/synthetic/clips.csv --seed {config['seed']}"

rule backbone:
    input:
        FEATURES,
    output:
        f"{RUN}/backbones/{{name}}.txt",
    params:
        made_with=made_with("lift/extraction.py", settings=section("features")),
    threads: 64  # all that there are
    shell:
        fresh(f"{RUN}/backbones/{{wildcards.name}}") + f"lift ablation features {PROFILE} {{wildcards.name}} > {{output}}"

rule variant:
    input:
        lambda w: features_of(w.variant),
    output:
        f"{RUN}/ablation/{{variant}}-{{seed}}/measurements.csv",
    params:
        made_with=lambda w: made_with("lift/ablation.py", settings=section("ablation.recipe") + str(ABLATION["variants"][w.variant])),
        clips=[ABLATION.get("clips"), ABLATION.get("test_clips")],
    shell:
        fresh(f"{RUN}/ablation/{{wildcards.variant}}-{{wildcards.seed}}")
        + f"lift ablation train {PROFILE} {{wildcards.variant}} --seed {{wildcards.seed}}"

rule real:  # the data sets lie outside: what their folder holds is a parameter
    input:
        lambda w: [] if w.step in ("features", "bases") else PACKAGED,
        f"{RUN}/synthetic/clips.csv" if REAL and "synthetic" in config else [],
        lambda w: [*(config["real"].get("outside") or {}).values()] if w.step == "embeddings" else [],
        lambda w: [f"{RUN}/{before}.txt" for before, after in zip(STEPS, [*STEPS][1:]) if after == w.step],
    output:
        f"{RUN}/{{step}}.txt",
    params:
        folder=lambda w: STEPS[w.step],
        code=lambda w: "" if w.step in ("features", "bases") else made_with("lift/bases.py"),
        found=lambda w: sorted(map(str, Path(DATA).glob("*/*"))) if DATA and w.step == "clips" else "",
        made_with=lambda w: made_with(*OWN.get(w.step, ("lift/bases.py",)), settings=section(w.step) if w.step in OWN and w.step in config else ""),
        settings=lambda w: {"clips": str(config["real"].get("benchmarks")), "features": "", "bases": "",
            "results": section("real") + section("bootstrap"), "combinations": str(config.get("combinations"))}.get(w.step, section("real")),
    threads: 64  # all that there are
    shell:
        fresh(f"{RUN}/{{params.folder}}") + f"lift benchmark {{wildcards.step}} {PROFILE} > {{output}}"

rule notebook:
    input:
        products,
        PACKAGED,
        notebook=lambda w: str(PATHS[w.name]),
    output:
        notebook=f"{RUN}/notebooks/{{name}}.ipynb",
        figures=directory(f"{RUN}/figures/{{name}}"),
    params:
        folder=lambda w: PATHS[w.name].parent,
        values=lambda w: f"-p profile {PROFILE}" if PATHS[w.name].parent.name == "paper" else f"-p figures_dir $PWD/{RUN}/figures/{w.name}",
        made_with=lambda w: made_with(PATHS[w.name], settings=json.dumps(config, sort_keys=True)),
    retries: 1  # another program may take the port that a kernel was given
    shell:
        "mkdir -p {output.figures}; papermill {input.notebook} {output.notebook} --cwd {params.folder} --no-progress-bar --start-timeout 300 {params.values}"
