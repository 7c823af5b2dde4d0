"""Where the actors live that a run cannot do without."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLACES = """
import ray
from ray.cluster_utils import Cluster
from dawnchorus.cluster import beside_driver

class Somewhere:
    def node(self):
        return ray.get_runtime_context().get_node_id()

small = {"object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
cluster.add_node(num_cpus=1, **small)
ray.init(address=cluster.address, log_to_driver=False)
here = ray.get_runtime_context().get_node_id()
places = ray.get([beside_driver(Somewhere).node.remote() for _ in range(6)])
print("away:", sum(place != here for place in places))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_what_counts_commits_is_on_no_node_that_may_go() -> None:
    """Ray put two of four actors without slots on workers."""
    done = subprocess.run(
        [sys.executable, "-c", PLACES], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "away: 0"
