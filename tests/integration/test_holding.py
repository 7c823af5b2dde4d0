"""What a pool that may grow is told to have: the nodes that are there, not those that may come."""

from __future__ import annotations

import pytest

from dawnchorus.holding import Held
from dawnchorus.placement import Resources


def test_engines_that_never_came_are_neither_busy_nor_paid_for(one_ray: None) -> None:
    held = Held(Resources(8, 1.0, 1.0, 4, 1.0, 8, 1, first_engines=1))
    assert (held.engines, held.gpus) == (1, 1.0)
    held.looked -= 3600.0
    held.look(3600.0)
    assert held.gpu_hours == pytest.approx(1.0, rel=0.01)
    assert held.busy(1800.0) == pytest.approx(0.5, rel=0.01)
    assert held.engines == 0, "this machine has no GPU: the node went"
    held.looked -= 3600.0
    held.look(7200.0)
    assert held.gpu_hours == pytest.approx(1.0, rel=0.01)
    fixed = Held(Resources(8, 1.0, 1.0, 4, 1.0, 8, 1))
    fixed.look(1.0)
    assert fixed.engines == 8, "whoever does not grow began with all"
