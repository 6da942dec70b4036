"""Shared fixtures, and what makes a test independent of those that ran before it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("lift", deadline=None, derandomize=True)
settings.load_profile("lift")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say the seed of the order: pytest-randomly does so in a header that `-q` leaves out."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    seed = session.config.getoption("randomly_seed", None)
    if terminal and seed is not None and not hasattr(session.config, "workerinput"):
        terminal.write_line(
            f"order of the tests: pytest -p randomly --randomly-seed={seed} gives it again"
        )


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Every test finds generators, settings and environment as the first one did, whatever ran before it."""
    environment = dict(os.environ)
    torch, matplotlib = sys.modules.get("torch"), sys.modules.get("matplotlib")
    threads, style = torch and torch.get_num_threads(), matplotlib and matplotlib.rcParams.copy()
    if torch:
        torch.manual_seed(0)
    yield
    if torch:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)  # Lightning leaves it on
        torch.set_default_dtype(torch.float32)
    if style:
        dict.update(matplotlib.rcParams, style)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(
        {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and annotations that lies beside the project for development; absent on a user's machine."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "clips").is_dir():
        pytest.skip("the folder ../shared with real clips and annotations is absent")
    return folder
