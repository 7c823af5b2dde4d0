#!/usr/bin/env python3
"""Ask a Ray cluster for slots, wait until they are there, and become the command that uses them.

    await-nodes --gpus 4 --cpus 32 dawnchorus run run.yaml

A run sizes itself by the cluster as it is at its start, and a cluster that scales from zero is empty then.
Where an autoscaler listens (KubeRay, `ray up`) it brings the nodes; elsewhere (Slurm, SkyPilot) they come by
themselves. When time is up, one of each kind asked for is enough; else the exit code is 3, a paused run's.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping


def main() -> int:
    """Wait, say what came, and run the command; returns an exit code where there is none to run."""
    parser = argparse.ArgumentParser(prog="await-nodes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", type=int, default=0, help="GPUs to wait for")
    parser.add_argument("--cpus", type=int, default=1, help="CPU slots to wait for")
    parser.add_argument("--seconds", type=float, default=1800.0, help="then go on with what there is")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run then")
    arguments = parser.parse_args()
    wanted = {k: v for k, v in (("GPU", arguments.gpus), ("CPU", arguments.cpus)) if v > 0}
    import ray

    from dawnchorus import auth

    auth.set_mode()
    ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    there = _wait(wanted, arguments.seconds)
    missing = [k for k in wanted if not there.get(k)]
    short = [k for k, n in wanted.items() if there.get(k, 0) < n]
    found = ", ".join(f"{there.get(k, 0):g} of {n} {k}" for k, n in wanted.items())
    sys.stderr.write(f"{found} after waiting{': time is up' if short else ''}.\n")
    if missing:
        return 3
    if arguments.command:
        # Not a child: signals, such as `ray job stop`, have to reach the run itself.
        ray.shutdown()
        os.execvp(arguments.command[0], arguments.command)
    return 0


def _wait(wanted: Mapping[str, int], seconds: float) -> Mapping[str, float]:
    """What the cluster has once `wanted` is there, or after `seconds`."""
    import ray
    from ray.autoscaler.sdk import request_resources

    # One bundle a GPU: they may come from different nodes. Requested until withdrawn below.
    request_resources(num_cpus=wanted.get("CPU"), bundles=[{"GPU": 1}] * wanted.get("GPU", 0))
    end = time.monotonic() + seconds
    try:
        while True:
            there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            if all(there.get(k, 0) >= n for k, n in wanted.items()) or time.monotonic() >= end:
                return there
            time.sleep(1.0)
    finally:
        # Else the autoscaler would keep the nodes when the run no longer needs them.
        request_resources(bundles=[])


if __name__ == "__main__":
    sys.exit(main())
