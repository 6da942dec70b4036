"""The profile for SLURM: every job of a reproduction is planned, with its resources."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROFILE = yaml.safe_load((ROOT / "config/slurm/config.yaml").read_text())


def test_the_profile_names_rules_that_there_are():
    rules = [
        line.split()[1][:-1]
        for line in (ROOT / "Snakefile").read_text().splitlines()
        if line.startswith("rule ")
    ]
    named = {*PROFILE["set-threads"], *PROFILE["set-resources"]}
    assert named and named <= {rule.rstrip(":") for rule in rules}


@pytest.mark.skipif(
    find_spec("snakemake_executor_plugin_slurm") is None,
    reason="needs snakemake-executor-plugin-slurm",
)
def test_a_dry_run_plans_a_reproduction_for_slurm():
    command = ["snakemake", "--profile", "config/slurm", "--configfile", "config/smoke.yaml"]
    planned = subprocess.run(
        [*command, "--dry-run", "--forceall", "--nolock"], cwd=ROOT, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout + planned.stderr
    job = said[said.index("rule features:") :].split("\n\n")[0]
    assert "gpu=1" in job and "threads: 16" in job and "mem_mb=16000" in job


def test_hours_and_gigabytes_follow_from_the_rates():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From one machine")[1]
    rows = [row.split("|")[2:9] for row in section.split("\n## ")[0].splitlines() if "| `" in row]
    assert len(rows) == 4
    for dim, _, rate, *costs in rows:
        hours = [f"{clips / float(rate) / 3600:.1f}" for clips in (240_000, 220_847)]
        sizes = [f"{clips * 16 * int(dim) * 2 / 1e9:.1f}" for clips in (240_000, 220_847)]
        assert [cost.strip() for cost in costs] == [*hours, *sizes]
