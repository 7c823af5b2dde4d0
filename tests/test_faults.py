"""What Ray raised, in words of ours."""

from __future__ import annotations

from ray.exceptions import RayTaskError

from dawnchorus.faults import first_line


def test_an_error_of_a_worker_says_what_and_not_where() -> None:
    text = "ray::MapWorker(MapBatches(Transcriber)).submit() (pid=1, ip=192.0.2.2)\nValueError: too loud"
    passed_on = RayTaskError("submit", text, ValueError("too loud")).as_instanceof_cause()
    assert "MapWorker" in str(passed_on).splitlines()[0], "which is why"
    assert first_line(passed_on) == "too loud"
    assert first_line(KeyError()) == "KeyError"
