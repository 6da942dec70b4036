"""Faults on purpose: `make test` runs a few of each kind, `make faults` many, from a seed that it prints."""

import os
import random
from pathlib import Path

import pytest


@pytest.fixture
def dice(request) -> random.Random:
    """Random numbers of this test; LIFT_FAULTS_SEED gives others."""
    return random.Random(f"{os.environ.get('LIFT_FAULTS_SEED', 0)} {request.node.name}")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """24 short videos, each of a colour of its own; only read."""
    from test_extraction import paint
    from test_kills import CLIPS

    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(CLIPS):
        paint(folder / name, number)
    return folder
