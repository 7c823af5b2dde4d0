"""What a run says of itself in its output: while it waits, in every attempt, and when it ends."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dawnchorus import config, progress, signals
from dawnchorus.cluster import Progress
from dawnchorus.errors import ConfigError, OutputOwned, RunPaused
from dawnchorus.placement import Node, share_out
from dawnchorus.prepare import Prepared, Survey, prepare, survey
from dawnchorus.progress import Pace, Status
from dawnchorus.recorded import Recorded, failed, failing
from kit import archive
from runner import Silent


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    archive(tmp_path / "audio", [3.0, 4.0], seed=71)
    tree = {"input": str(tmp_path / "audio"), "output": str(tmp_path / "out"), "engine": {"name": "fake"}}
    return prepare(config.build(tree | {"cost": {"gpu_hour": 3.6}}))


def told(prepared: Prepared) -> Status:
    found = progress.read(prepared.run_url)
    assert found is not None
    return found


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_run_that_waits_is_not_silent(prepared: Prepared) -> None:
    """Nodes may take half an hour, and publishing its time: after two minutes it seemed dead."""
    with Recorded(Silent(), prepared, 1, every=0.05) as shown:
        first = told(prepared).updated_at
        until(lambda: told(prepared).updated_at > first)
        assert told(prepared).state == "starting"
        shown.writer.update(state="publishing")
        until(lambda: told(prepared).state == "publishing")
    assert told(prepared).state == "publishing"


def test_a_run_that_waits_for_nodes_can_be_stopped(prepared: Prepared) -> None:
    ui = Silent()
    with Recorded(ui, prepared, 1, every=0.05) as shown:
        progress.ask_to_stop(prepared.run_url, 1)
        time.sleep(0.3)  # nothing can be stopped yet; a signal would end the process
        shown.listened = 0.0
        with pytest.raises(KeyboardInterrupt), signals.terminable():
            time.sleep(20.0)
    assert shown.asked
    assert told(prepared).state == "starting"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (ConfigError("no"), 2), (RunPaused("no"), 1)]
)
def test_its_last_word_has_the_exit_code(prepared: Prepared, error: BaseException, code: int) -> None:
    with pytest.raises(type(error)), Recorded(Silent(), prepared, 1):
        raise error
    assert (told(prepared).state, told(prepared).exit) == ("ended", code)


def test_who_was_taken_over_does_not_write_over_its_successor(prepared: Prepared) -> None:
    old = progress.begin(prepared.run_url, "r", 1)
    progress.begin(prepared.run_url, "r", 2)
    old.update(at_once=True, state="transcribing")
    assert (told(prepared).epoch, told(prepared).state) == (2, "starting")


@pytest.mark.parametrize("broken", ["", "{", "[]", "[1]", "3", '{"run_id": "r"}', "\udcff"])
def test_a_broken_status_is_none(prepared: Prepared, broken: str) -> None:
    place = Path(prepared.run_url.removeprefix("file://"))
    place.mkdir(parents=True)
    (place / progress.FILE).write_text(broken, errors="surrogateescape")
    assert progress.read(prepared.run_url) is None
    progress.begin(prepared.run_url, "r", 1)
    assert told(prepared).epoch == 1


def test_a_second_attempt_has_no_negative_pace() -> None:
    pace = Pace()
    pace.add(0.0, 0.0)
    pace.add(10.0, 1000.0)
    assert pace.recent() == 100.0
    pace.add(11.0, 0.0)
    pace.add(21.0, 50.0)
    assert pace.recent() == 5.0


def test_the_cost_goes_on_in_a_second_attempt(prepared: Prepared) -> None:
    """Seconds begin anew with an attempt, but the GPUs were held all the while."""
    gpu = config.build(prepared.config.model_dump() | {"workers": {"gpus_per_engine": 1.0}})
    use = share_out(gpu, [Node(8.0, 1.0, "H100")])
    work: Survey = survey(prepared)
    with Recorded(Silent(), prepared, 1, every=0.0) as shown:
        shown.plan(prepared, work, use)
        assert shown.held is not None
        shown.held.looked -= 3600.0
        shown.progress(work, Progress(), 1.0)
    assert told(prepared).cost == pytest.approx(3.6, rel=0.01)


def test_what_failed_before_is_counted_on(prepared: Prepared) -> None:
    """A second pass over three of a thousand showed no failure until the end."""
    work = replace(survey(prepared), failures={"not_found": 500})
    with Recorded(Silent(), prepared, 1, every=0.0) as shown:
        shown.plan(prepared, work, None)
        assert (told(prepared).num_failed, dict(told(prepared).failures)) == (500, {"not_found": 500})
        shown.progress(work, Progress(num_failed=1, failures=Counter(crash=1)), 1.0)
        assert dict(told(prepared).failures) == {"not_found": 500, "crash": 1}
        assert told(prepared).num_failed == 501


def test_who_could_not_start_is_told_of_and_who_found_another_at_work_is_not(tmp_path: Path) -> None:
    keep = f"import sys; open({str(tmp_path / 'news')!r}, 'w').write(sys.stdin.read())"
    notify = {"command": [sys.executable, "-c", keep]}
    mine = config.build({"input": "s3://in", "output": "s3://out", "notify": notify})
    with pytest.raises(OutputOwned), failing(mine, Silent()):
        raise OutputOwned("It is being written by another run.")
    assert not (tmp_path / "news").exists()
    with pytest.raises(ConfigError), failing(mine, Silent()):
        raise ConfigError("There is nothing at s3://in.")
    news = json.loads((tmp_path / "news").read_text())
    assert (news["event"], news["exit"], news["message"]) == ("failed", 2, "There is nothing at s3://in.")


def test_a_price_that_nobody_knows_is_said_before_the_work(prepared: Prepared) -> None:
    """Not in a thread while it works, nor when the report of the night is made."""
    config_ = prepared.config.model_copy(update={"cost": config.CostConfig(gpu="H1OO")})
    use = share_out(config_, [Node(8.0, 1.0, "H100")])
    shown = Recorded(Silent(), replace(prepared, config=config_), 1)
    with pytest.raises(ConfigError, match="no price of 'H1OO'"), shown:
        shown.plan(prepared, survey(prepared), use)


def test_kinds_are_added_up_and_what_is_ok_in_part_has_not_failed() -> None:
    kinds = [
        {"kind": "crash", "num": 2, "partial": False},
        {"kind": "crash", "num": 3, "partial": False},
        {"kind": "damaged_audio", "num": 7, "partial": True},
    ]
    assert failed(kinds) == {"crash": 5}
