"""Graph 3 as often as it takes: ask the next steps, fold the answers that are ready, until none is left.

A short transcript takes one round, a long one as many as its notes have levels. Whatever ends it, what is
answered is folded. Knows how to run the rounds; what their end means is `run`'s.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from typing import Any, Protocol

import ray

from dawnchorus import answers, cluster, graph, plan, signals, tracing
from dawnchorus.answers import Answered, Asking, Job
from dawnchorus.config import RunConfig
from dawnchorus.errors import RunPaused, Transient
from dawnchorus.faults import first_line, our_error, with_origin
from dawnchorus.placement import ENGINE_SHARE, WRITE_CPUS, Resources, gpus_per_engine
from dawnchorus.records import Seconds
from dawnchorus.sink import AnswerSink
from dawnchorus.stages.answer import AnswerSettings, Cut

CPU_WINDOW_ROWS = 4
GPU_WINDOW_ROWS = 64
_MAX_ABORTS = 3
_FOLD_HERE = 16
"""Home files that this process folds by itself; a graph takes a second or two to begin."""
_BLOCK_BYTES = 4 << 20


class AnswerUi(Protocol):
    """What graph 3 shows a person while it goes on."""

    def say(self, text: str) -> None:
        """One line of news."""

    def asking(self, left: Asking, use: Resources) -> None:
        """What is about to be asked, before the model is loaded."""

    def answering(self, left: int, answered: Answered, elapsed: Seconds) -> None:
        """Called about once a second: `left` answers were to be given when it began."""


class AnswerTally:
    """Counts commits, as a Ray actor that sinks tell of every part."""

    def __init__(self) -> None:
        self.answered = Answered(last_commit=time.time())
        self.windows: list[dict[str, Any]] = []

    def add(self, counts: dict[str, int], windows: list[dict[str, Any]]) -> None:
        """Count one committed window; `windows` is what a trace tells of it."""
        self.windows += windows
        for name, value in counts.items():
            setattr(self.answered, name, getattr(self.answered, name) + value)
        self.answered.last_commit = time.time()

    def read(self) -> Answered:
        """The sum so far."""
        return self.answered

    def take(self) -> list[dict[str, Any]]:
        """What traces tell of the windows since this was asked last."""
        taken, self.windows = self.windows, []
        return taken


def share_out(config: RunConfig, use: Resources) -> Resources:
    """What graph 3 may use of what the run may: the same replicas, windows of its own."""
    rows = config.llm.window_rows or (GPU_WINDOW_ROWS if use.gpus_per_engine else CPU_WINDOW_ROWS)
    return replace(use, window_rows=rows)


def placed(config: RunConfig) -> RunConfig:
    """The configuration by which graph 3 is shared out: its engine is the language model, of which a node
    without a GPU holds one, since each is the whole model (Qwen3-1.7B in float32: 6.9 GB)."""
    here = [n for n in cluster.nodes() if n.cpus]
    mine = config.model_copy(update={"engine": config.llm_engine()})
    if config.workers.engines is not None or not here or gpus_per_engine(mine, sum(n.gpus for n in here)):
        return mine
    each = config.workers.cpus_per_engine or max(1.0, float(int(min(n.cpus for n in here) * ENGINE_SHARE)))
    most = int((sum(n.cpus for n in here) - 1.0) / each)
    alone = {"engines": max(1, min(len(here), most)), "cpus_per_engine": each}
    return mine.model_copy(update={"workers": config.workers.model_copy(update=alone)})


@tracing.span("ask")
def ask(config: RunConfig, job: Job, epoch: int, ui: AnswerUi) -> BaseException | None:
    """Answer what is left of a job, and fold it. Returns what stopped it early, if anything did.

    Raises:
        Fenced: another run owns the output by now.
    """
    left = answers.survey(job)
    if not len(left.rows):
        answers.fold(job.output, job.run_url, epoch, [job.asked])
        return None
    if not ray.is_initialized():
        ui.say(cluster.beginning(config))
    cluster.start(config)
    with signals.terminable(), tempfile.TemporaryDirectory(prefix="dawnchorus-notes-") as scratch:
        try:
            use = share_out(config, cluster.resources(placed(config), ui.say))
            ui.asking(left, use)
            return _Rounds(config, job, epoch, use, scratch, ui).all(left)
        except (RunPaused, KeyboardInterrupt) as e:
            return e.with_traceback(None)  # while it waited for nodes
        finally:
            cluster.free_stopped_graphs()
            fold(job, epoch)


def fold(job: Job, epoch: int) -> None:
    """Put the answers that are ready into their rows: by Ray, unless that would take longer to begin."""
    staged = answers.stage_fold(job.output, job.run_url, epoch, [job.asked])
    if staged is not None and staged[0].num_groups > _FOLD_HERE:
        graph.transcripts(*staged).materialize()
    elif staged is not None:
        answers.fold_staged(*staged)


class _Rounds:
    """The rounds of one job."""

    def __init__(
        self, config: RunConfig, job: Job, epoch: int, use: Resources, scratch: str, ui: AnswerUi
    ) -> None:
        self.config, self.job, self.epoch, self.use, self.scratch, self.ui = (
            config,
            job,
            epoch,
            use,
            scratch,
            ui,
        )
        self.tally: Any = cluster.beside_driver(AnswerTally)
        self.num_rounds = 0
        self.num_aborts = 0
        self.num_left = 0
        self.stalled: RunPaused | None = None
        self.began = time.monotonic()

    def all(self, first: Asking) -> BaseException | None:
        """Round after round, the first over `first`, until a round finds nothing more to ask."""
        self.num_left = first.num_left
        kinds = self.job.resume.retry_failed
        reopened = None if kinds is None else first.rows["recording_id"].combine_chunks()
        left: Asking | None = first
        while True:
            try:
                if left is None:
                    left = self._left(reopened)
                if not len(left.rows) or not self._round(left):
                    return None
            except KeyboardInterrupt as e:
                return (self.stalled or e).with_traceback(None)
            except Exception as e:
                known = our_error(e)
                if isinstance(known, RunPaused):
                    return known.with_traceback(None)
                self.num_aborts += 1
                passing = isinstance(known, Transient)  # the storage's fault, no answer's
                if known is not None and not passing:
                    fatal = with_origin(known, e)
                    break
                if self.num_aborts >= _MAX_ABORTS:
                    if passing:
                        return RunPaused(first_line(e))
                    raise
                self.ui.say(f"The answers stopped ({first_line(e)}). Going on with what is left.")
                time.sleep(self.config.resume.backoff_seconds)
            left = None
        raise fatal

    def _left(self, reopened: Any) -> Asking:
        """What is left after a round, with what it answered folded."""
        cluster.free_stopped_graphs()
        fold(self.job, self.epoch)
        left = answers.survey(self.job, False, reopened)
        if left.num_transient:
            time.sleep(self.config.resume.backoff_seconds)
        return left

    def _round(self, left: Asking) -> int:
        """One graph over what is left; returns how many steps it committed."""
        job, first = self.job, self.num_rounds == 0
        name = f"asks-{self.num_rounds:03d}"
        self.num_rounds += 1
        homes = plan.write_attempt(left.rows, "home", job.run_url, (job.output, self.epoch), name)
        kinds = job.resume.retry_failed if first else None
        cut = Cut(homes, job.output, job.asked, job.resume.max_attempts, kinds)
        answer = AnswerSettings(self._asked(), job.run_id, self.epoch, self.scratch)
        sink = AnswerSink(job.output, self.epoch, "answers", job.asked.metadata(), self.tally)
        cluster.tune(_BLOCK_BYTES)
        # How many steps there are is known only when they are cut: a model may be left without one.
        warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
        steps = left.num_left + left.num_tokens // job.asked.piece_tokens
        windows = -(-steps // self.use.window_rows)
        use = self.use.at_most(windows)
        with self._watched():
            graph.answers(homes, cut, answer, use).write_datasink(
                sink, ray_remote_args={"num_cpus": WRITE_CPUS}
            )
        return sink.num_rows

    def _asked(self) -> Any:
        """The job's prompts, with as many threads for the model as a replica has CPUs, unless it says."""
        engine = self.job.asked.engine
        return replace(self.job.asked, engine=self.use.shares(engine))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While a graph runs: progress once a second, and an end to a silence that is too long."""
        over = Event()
        thread = Thread(target=self._watch, args=(over,), daemon=True, name="answers")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if tracing.enabled():
                tracing.windows(ray.get(self.tally.take.remote()))
            self.ui.answering(self.num_left, self._read(), time.monotonic() - self.began)

    def _watch(self, over: Event) -> None:
        limit, began = self.config.resume.stall_seconds, time.time()
        while not over.wait(1.0):
            answered = self._read()
            self.ui.answering(self.num_left, answered, time.monotonic() - self.began)
            silent = time.time() - max(answered.last_commit, began)
            if limit and silent > limit and self.stalled is None:
                self.stalled = RunPaused(f"nothing was answered for {silent:.0f} s (resume.stall_seconds)")
                signals.interrupt()

    def _read(self) -> Answered:
        answered: Answered = ray.get(self.tally.read.remote())
        return answered
