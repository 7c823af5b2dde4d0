"""What is left of an attempt: estimates that learn, and a live line that never says it is done too early."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dawnchorus.cluster import Progress
from dawnchorus.expected import Expected
from dawnchorus.prepare import Survey
from dawnchorus.terminal import progress_line
from tables import manifest, recording

IDS = [f"{n:032x}" for n in range(10)]


def test_the_rest_is_scaled_as_the_others_were_off() -> None:
    expected = Expected(IDS, np.full(10, 100.0))
    assert expected.total(0.0) == 1000.0
    expected.learn({IDS[3]: 300.0, "f" * 32: 9.0})
    assert expected.total(350.0) == pytest.approx(300 + 900 * 3)
    expected.learn({IDS[4]: 0.0})
    assert expected.total(350.0) == pytest.approx(300 + 800 * 3), "what is no audio is no measure"


def test_nothing_is_over_while_a_recording_is_open() -> None:
    expected = Expected(IDS[:2], np.array([10.0, 10.0]))
    expected.learn({IDS[0]: 12.0})
    assert expected.total(500.0) > 500.0
    expected.learn({IDS[1]: 600.0})
    assert expected.total(612.0) == 612.0


@pytest.mark.parametrize("expected", [None, 1140.0 / 0.99])
def test_the_live_line_never_says_done_too_early(expected: float | None) -> None:
    rows = manifest(recording("a"), recording("b"))
    survey = Survey(rows, np.array([300.0, 300.0]), {}, {}, 2, 0, 0, 0, 600.0, 1.0, alone=pa.array([]))
    progress = Progress(num_recordings=1, audio_seconds=1140.0, expected_seconds=expected)
    line = progress_line(survey, progress, 1.0).plain
    assert "100%" not in line
    assert "ETA 0 s" not in line
    done = Progress(num_recordings=2, audio_seconds=1140.0, expected_seconds=expected and 1140.0)
    assert "100% of 19 min" in progress_line(survey, done, 60.0).plain


def test_before_the_first_window_the_line_says_how_long_it_has_waited() -> None:
    rows = manifest(recording("a"), recording("b"))
    survey = Survey(rows, np.array([300.0, 300.0]), {}, {}, 2, 0, 0, 0, 600.0, 1.0, alone=pa.array([]))
    line = progress_line(survey, Progress(), 120.0).plain
    assert "starting: 2 min for the model and its first window" in line
