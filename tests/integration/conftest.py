"""One Ray for all runs of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from dawnchorus import cluster, config
from runner import Runner


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    cluster.start(config.build({"input": "-", "output": "-"}))
    yield
    ray.shutdown()


@pytest.fixture
def runner(one_ray: None, tmp_path: Path) -> Runner:
    return Runner(tmp_path)
