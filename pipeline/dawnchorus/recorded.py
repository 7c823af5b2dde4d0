"""A run's `Ui` that also keeps its progress.json current, by a heartbeat too, and ends the run when somebody
asks it to stop.

Wraps the one that a person looks at; knows neither graphs nor tables.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Any

from dawnchorus import cost, logs, metrics, notify, plan, reports, signals, storage, tracing
from dawnchorus import progress as recording
from dawnchorus.answers import Answered, Asking
from dawnchorus.attempt import Ui
from dawnchorus.cluster import Progress
from dawnchorus.config import RunConfig
from dawnchorus.errors import Fenced, OutputOwned
from dawnchorus.faults import first_line
from dawnchorus.holding import Held
from dawnchorus.outcome import Exit, Outcome, exit_of
from dawnchorus.placement import Resources
from dawnchorus.prepare import Prepared, Survey
from dawnchorus.progress import Pace, Writer
from dawnchorus.records import Seconds

_LISTEN_SECONDS: Seconds = 5.0
_LATE_SECONDS: Seconds = 300.0
"""How long a run has to look late before it is called late: the first windows say little."""
_EVENTS = {Exit.OK: "done", Exit.INCOMPLETE: "incomplete", Exit.INTERRUPTED: "stopped"}


class Recorded:
    """A `run.Ui`; a context manager around everything a run does after it owns its output, so that its last
    status says how it ended, an error included."""

    def __init__(
        self, ui: Ui, prepared: Prepared, epoch: int, every: Seconds = recording.EVERY_SECONDS
    ) -> None:
        self.ui = ui
        facts = prepared.facts
        about = {"engine": facts.engine, "model": facts.model, "num_recordings": len(prepared.manifest)}
        total = float(plan.estimated_seconds(prepared.manifest).sum())
        self.writer: Writer = recording.begin(
            prepared.run_url, facts.run_id, epoch, total_audio=total, **about
        )
        self.writer.every = every
        self.over = Event()
        self.heart = Thread(target=self._beat, daemon=True, name="status")
        self.config = prepared.config
        logs.bind(run_id=facts.run_id)
        logs.event("run_started", output=storage.shown(prepared.output), attempt=epoch, **about)
        tracing.about(run_id=facts.run_id, output=storage.shown(prepared.output), attempt=epoch, **about)
        self.report = reports.page_url(prepared.output, facts.run_id)
        self.pace = Pace()
        self.deadline = (
            None if self.config.notify.deadline is None else self.config.notify.deadline.timestamp()
        )
        self.late_since: float | None = None
        self.stalled = False
        self.late = False
        self.held: Held | None = None
        self.held_to_answer: Held | None = None
        self.price: cost.Price | None = None
        self.listened = 0.0
        self.asked = False

    def __enter__(self) -> Recorded:
        self.heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.over.set()
        self.heart.join()
        # Who was taken over is not heard any more: the file is the new owner's.
        if e is not None and not isinstance(e, Fenced):
            try:
                self.writer.update(at_once=True, state="ended", exit=int(exit_of(e)), message=_sentence(e))
            finally:
                self._tell("stopped" if isinstance(e, KeyboardInterrupt) else "failed")

    def _beat(self) -> None:
        """Say that the run lives where nothing else does: it waits for nodes, publishes, or counts. It can be
        stopped while it waits; what it publishes is not cut off."""
        while not self.over.wait(min(_LISTEN_SECONDS, self.writer.every)):
            self.writer.update()
            if self.writer.status.state == "starting":
                self._listen()

    def say(self, text: str) -> None:
        """One line of news, for the person only."""
        self.ui.say(text)

    def plan(self, prepared: Prepared, survey: Survey, use: Resources | None) -> None:
        """What is about to be done: shown, and written at once."""
        self.ui.plan(prepared, survey, use)
        self.held = None if use is None else self._hold(use)
        pending = float(survey.pending_seconds.sum())
        self.writer.update(
            at_once=True,
            state="transcribing" if len(survey.pending) else "publishing",
            num_done=survey.num_recordings - len(survey.pending),
            num_failed=sum(survey.failures.values()),
            failures=dict(survey.failures),
            total_audio=survey.total_seconds,
            done_audio=survey.total_seconds - pending,
            engines=self.held.engines if self.held else 0,
            gpus=self.held.gpus if self.held else 0.0,
        )

    def progress(self, survey: Survey, progress: Progress, elapsed: Seconds) -> None:
        """Called about once a second: shown, written when it is time; and hears whether to stop."""
        self.ui.progress(survey, progress, elapsed)
        self.pace.add(time.time(), progress.audio_seconds)
        planned = float(survey.pending_seconds.sum())
        pending = progress.expected_seconds or max(planned, progress.audio_seconds)
        rtfx = progress.audio_seconds / elapsed if elapsed > 0 else 0.0
        failures = Counter(survey.failures) + progress.failures
        left = pending - progress.audio_seconds
        eta = left / rtfx if rtfx else None
        self.writer.update(
            num_done=survey.num_recordings - len(survey.pending) + progress.num_recordings,
            num_failed=sum(failures.values()),
            failures=dict(failures),
            total_audio=survey.total_seconds - planned + pending,
            done_audio=survey.total_seconds - planned + progress.audio_seconds,
            rtfx=rtfx or None,
            rtfx_now=self.pace.recent(),
            eta_seconds=eta,
            **self._spent(self.held, elapsed),
            engine_busy=self.held.busy(progress.engine_seconds) if self.held else None,
        )
        self._notice(time.time() - progress.last_commit)
        self._expect(left, eta, progress.last_commit)
        self._listen()

    def asking(self, left: Asking, use: Resources) -> None:
        """What graph 3 is about to ask: shown, and written at once."""
        self.ui.asking(left, use)
        self.held_to_answer = self._hold(use)
        self.writer.update(
            at_once=True,
            state="answering",
            num_answers=0,
            num_asked=left.num_left,
            eta_seconds=None,
            engine_busy=None,
        )

    def answering(self, left: int, answered: Answered, elapsed: Seconds) -> None:
        """Called about once a second: shown, written when it is time; and hears whether to stop."""
        self.ui.answering(left, answered, elapsed)
        given = answered.num_answers
        eta = (left - given) * elapsed / given if given else None
        spent = self._spent(self.held_to_answer, elapsed)
        self.writer.update(num_answers=given, num_asked=left, eta_seconds=eta, **spent)
        self._expect(None, eta, answered.last_commit)
        self._listen()

    def ended(self, outcome: Outcome) -> None:
        """How it ended, with the final counts."""
        found = outcome.reconciliation
        done, total = self._audio(outcome)
        self.writer.update(
            at_once=True,
            state="ended",
            exit=int(outcome.exit),
            message=outcome.message,
            num_recordings=found.num_recordings,
            num_done=found.num_recordings - found.num_missing,
            num_failed=found.num_failed,
            total_audio=total,
            done_audio=done,
            failures=failed(outcome.report["failures"]["kinds"]),
            rtfx=outcome.report["time"]["rtfx"] or None,
            cost=self._dollars(outcome.report["cost"]["dollars"], self.held_to_answer),
            eta_seconds=None,
            rtfx_now=None,
        )
        self._tell(_EVENTS.get(outcome.exit, "failed"))

    def _audio(self, outcome: Outcome) -> tuple[Seconds, Seconds]:
        """What is done and what there is: as measured once nothing is left, until then as planned."""
        published = float(outcome.report["coverage"]["audio"])
        found, planned = outcome.reconciliation, self.writer.status.total_audio
        num_left = found.num_missing + found.num_transient
        if not num_left:
            return published, published
        left = planned * num_left / found.num_recordings
        return max(published, self.writer.status.done_audio), max(planned, published + left)

    def _hold(self, use: Resources) -> Held:
        """From now on these engines are held, at a price if somebody knows it."""
        self.price = cost.price(self.config.cost, use.accelerator) if use.gpus else None
        return Held(use)

    def _spent(self, held: Held | None, elapsed: Seconds) -> dict[str, Any]:
        """What a graph holds now, and what this command has cost so far, as long as that is priced."""
        if held is None:
            return {}
        held.look(elapsed)
        dollars = self._dollars(None, self.held, self.held_to_answer)
        return {"engines": held.engines, "gpus": held.gpus, "cost": dollars}

    def _dollars(self, before: float | None, *held: Held | None) -> float | None:
        if self.price is None:
            return before
        return (before or 0.0) + sum(h.gpu_hours for h in held if h is not None) * self.price.dollars

    def _notice(self, silent: Seconds) -> None:
        """Tell, once, of half the silence after which the run pauses itself: somebody may still mend it."""
        limit = self.config.resume.stall_seconds
        if limit and silent > limit / 2 and not self.stalled:
            self.stalled = True
            self._tell("stalled", f"Nothing was committed for {silent:.0f} s.")

    def _expect(self, left: Seconds | None, eta: Seconds | None, last_commit: float) -> None:
        """Tell Prometheus what is left and until when; somebody, once, of a deadline that will be missed."""
        now, due = time.time(), self.deadline
        metrics.tell(self.writer.status.run_id, metrics.of_progress(left, eta, now - last_commit, due))
        if due is None or now + (eta or 0.0) <= due:
            self.late_since = None
            return
        self.late_since = self.late_since or now
        if not self.late and (now > due or now - self.late_since > _LATE_SECONDS):
            self.late = True
            by = f"{(now + (eta or 0.0) - due) / 3600:.1f} h" if eta else "no telling by how much"
            self._tell("late", f"It will miss its deadline: {by}.")

    def _tell(self, event: str, message: str | None = None) -> None:
        now = self.writer.status
        news = {
            "text": f"Dawn Chorus run {now.run_id}: {event}. {message or now.message}",
            "run_id": now.run_id,
            "output": self.config.output,
            "report": self.report,
            "message": message or now.message,
            "exit": now.exit,
            "num_recordings": now.num_recordings,
            "num_done": now.num_done,
            "num_failed": now.num_failed,
            "failures": dict(now.failures),
        }
        log = logs.event if event == "done" else logs.warning
        counts = {k: news[k] for k in ("exit", "num_recordings", "num_done", "num_failed", "failures")}
        tracing.about(exit=now.exit, num_done=now.num_done, num_failed=now.num_failed)
        log(f"run_{event}", detail=message or now.message, **counts)
        for problem in notify.tell(self.config.notify, event, news):
            self.ui.say(problem)

    def _listen(self) -> None:
        if self.asked or time.monotonic() - self.listened < _LISTEN_SECONDS:
            return
        self.listened = time.monotonic()
        if self.writer.stop_asked() and signals.interrupt():
            self.asked = True
            self.ui.say("Somebody asked this run to stop.")


@contextmanager
def failing(config: RunConfig, ui: Ui) -> Iterator[None]:
    """Tell whom `notify` names of a run that fails before it owns its output, where no status says so; not of
    one that finds another at work."""
    try:
        yield
    except OutputOwned:
        raise
    except Exception as e:
        said = _sentence(e)
        news = {
            "text": f"Dawn Chorus could not start: {said}",
            "output": config.output,
            "message": said,
            "exit": int(exit_of(e)),
        }
        for problem in notify.tell(config.notify, "failed", news):
            ui.say(problem)
        raise


def failed(kinds: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Recordings that failed, by kind: one kind may come from several stages. What failed in part is ok."""
    counts: Counter[str] = Counter()
    for kind in kinds:
        if not kind["partial"]:
            counts[kind["kind"]] += kind["num"]
    return dict(counts)


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Stopped; run the same command to go on."
    return first_line(error)
