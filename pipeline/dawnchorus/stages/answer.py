"""The two stages of LLM mode: `Cut` finds the next steps of each answer, `Answerer` takes them.

Row in, row out: a step that fails is a row that says so. What is committed already is read, never asked
again. Knows no plan, and no engine but by its contract.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import ids, storage
from dawnchorus.answering import Done, Step, Task, next_steps
from dawnchorus.duplicates import resolve_steps
from dawnchorus.engines import create_language_model
from dawnchorus.engines.base import Request
from dawnchorus.errors import Terminal, UserError
from dawnchorus.ledger import answers_url, transcripts_url
from dawnchorus.llm import Asked, model_facts
from dawnchorus.plan import Snapshot
from dawnchorus.prompts import Prompt, fitting_json
from dawnchorus.records import Hypothesis
from dawnchorus.schema import ANSWERS, SCHEMA_VERSION, STEPS, failure_row
from dawnchorus.stages.quarantine import Quarantine, Words
from dawnchorus.stages.watch import load

_WORDS = Words("answer", "prompt", "answering", "answered", "the prompts")
_SEGMENT = ("channel", "start", "end", "text", "speaker")
_COLUMNS = ["recording_id", *(f"segments.list.element.{name}" for name in _SEGMENT)]
_COMMITTED = [
    *("recording_id", "answer_fingerprint", "step_id", "text", "finish_reason"),
    "status",
    "failure",
]
_ROWS_AT_ONCE = 256


def deserves_another_try(failure: Mapping[str, Any], max_attempts: int, kinds: list[str] | None) -> bool:
    """Whether a failed step is asked again: a passing failure within its budget, or a kind in `kinds`
    ([]: all)."""
    named = kinds is not None and (not kinds or failure["kind"] in kinds)
    return named or bool(failure["transient"] and failure["attempts"] < max_attempts)


@dataclass(frozen=True, slots=True)
class Cut:
    """Callable for `map_batches` over home numbers: the steps that can run now, as `schema.STEPS` rows.

    Reads the transcripts of one home file and the committed steps towards their answers.
    """

    homes: Snapshot
    output: str
    asked: Asked
    max_attempts: int
    retry_kinds: list[str] | None

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Tables of steps; one without rows where nothing is left to ask."""
        for home in batch["id"].to_pylist():
            yield from self._of_home(self.homes.read(home))

    def _of_home(self, group: pa.Table) -> Iterator[pa.Table]:
        url = storage.join(transcripts_url(self.output), group["home"][0].as_py())
        wanted = group["recording_id"].combine_chunks()
        rows = storage.read_table(url, _COLUMNS)
        rows = rows.filter(pc.is_in(rows["recording_id"], value_set=wanted))
        done = committed_steps(self.output, group, list(self.asked.fingerprints.values()))
        held: list[dict[str, Any]] = []
        for row in _one_by_one(rows):
            held += self._of_recording(row, done.get(row["recording_id"], {}))
            if len(held) >= _ROWS_AT_ONCE:
                yield pa.Table.from_pylist(held, schema=STEPS)
                held = []
        yield pa.Table.from_pylist(held, schema=STEPS)

    def _of_recording(self, row: dict[str, Any], done: dict[str, Done]) -> Iterator[dict[str, Any]]:
        name = ids.transcript_hash(row["segments"])
        for prompt in self.asked.prompts:
            print_ = self.asked.fingerprints[prompt.name]
            task = Task(prompt, print_, name, model_facts(self.asked), self._again)
            key = {"recording_id": row["recording_id"], "transcript_hash": name, "answer_fingerprint": print_}
            for step in next_steps(task, row["segments"], done):
                yield {**key, **_step_row(step, prompt)}

    def _again(self, failure: Mapping[str, Any]) -> bool:
        return deserves_another_try(failure, self.max_attempts, self.retry_kinds)


def _one_by_one(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """A home file's rows without all of them being Python objects at once."""
    for batch in rows.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


def _step_row(step: Step, prompt: Prompt) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "name": prompt.name,
        "question": prompt.question,
        "step_id": step.step_id,
        "step": step.index,
        "inputs": list(step.inputs),
        "flags": list(step.flags),
        "failure": failure_row(step.failure),
        "prompt": step.prompt,
        "max_tokens": step.max_tokens,
        "tries": step.tries,
    }


def committed_steps(output: str, group: pa.Table, fingerprints: list[str]) -> dict[str, dict[str, Done]]:
    """Committed steps towards these answers, by recording and step id, from the parts that `group` names."""
    wanted, prints = group["recording_id"].combine_chunks(), pa.array(fingerprints, pa.string())
    tables = []
    for part in sorted(set(pc.list_flatten(group["parts"]).to_pylist())):
        table = storage.read_table(storage.join(answers_url(output), part), [*_COMMITTED, "attempt"])
        mine = pc.is_in(table["recording_id"], value_set=wanted)
        tables.append(table.filter(pc.and_(mine, pc.is_in(table["answer_fingerprint"], value_set=prints))))
    found: dict[str, dict[str, Done]] = {}
    for row in resolve_steps(pa.concat_tables(tables)).to_pylist() if tables else ():
        made = Done(row["text"] or "", row["finish_reason"], row["failure"])
        found.setdefault(row["recording_id"], {})[row["step_id"]] = made
    return found


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """What an Answerer needs: the model and its prompts, whose rows these are, a local folder for notes."""

    asked: Asked
    run_id: str
    attempt: int
    scratch: str


class Answerer:
    """Callable class for `map_batches`: `schema.STEPS` in, `schema.ANSWERS` out, row for row.

    Returns one table a call and is never a generator, so that Ray keeps calls one at a time.
    """

    def __init__(self, settings: AnswerSettings) -> None:
        self.settings = settings
        self.prompts = {p.name: p for p in settings.asked.prompts}
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.refusal: UserError | None = None
        try:
            self.model = create_language_model(settings.asked.engine)
            asked = settings.asked
            load(self.model, asked.engine, settings.run_id, self.worker, weights=asked.weights)
        except UserError as e:
            # As in Transcriber: an actor that cannot be built is built again and again.
            self.refusal = e.with_traceback(None)
        self.quarantine = Quarantine(Path(settings.scratch), _WORDS)
        self.last_end = time.perf_counter()

    def __call__(self, window: pa.Table) -> pa.Table:
        """Ask the steps of a window; those that have failed already pass through.

        Raises:
            UserError: the model could not be loaded.
        """
        if self.refusal is not None:
            raise self.refusal
        began, started = time.perf_counter(), time.time()
        wait = began - self.last_end
        steps = window.to_pylist()
        asked = [s for s in steps if s["failure"] is None]
        rows = {id(s): self._result(s, h) for s, h in zip(asked, self._complete(asked), strict=True)}
        self._repair(asked, rows)
        spent = (time.perf_counter() - began) / max(1, len(asked))
        for n, step in enumerate(asked):
            rows[id(step)]["timing"] = {
                "worker": self.worker,
                "started_at": started,
                "decode_seconds": None,
                "engine_seconds": spent,
                "wait_seconds": wait if n == 0 else 0.0,
            }
        self.last_end = time.perf_counter()
        failed = {"status": "failed", "finish_reason": "error", "num_tokens": 0}
        return pa.Table.from_pylist(
            [s | rows.get(id(s), failed) | self._stamp() for s in steps], schema=ANSWERS
        )

    def _complete(self, steps: list[dict[str, Any]]) -> list[Hypothesis]:
        requests = [Request(s["prompt"], s["max_tokens"]) for s in steps]
        return self.quarantine.call([s["step_id"] for s in steps], requests, self.model.complete)

    def _result(self, step: dict[str, Any], said: Hypothesis) -> dict[str, Any]:
        """The result columns of one step."""
        failure = failure_row(said.error)
        if failure is None and not said.text and step["kind"] == "answer":
            failure = failure_row(Terminal("empty_answer", "The model said nothing.", "answer").failure())
        if failure is not None:
            failure["attempts"] = step["tries"] + 1
        return {
            "text": said.text,
            "json": None,
            "finish_reason": said.finish_reason,
            "num_tokens": said.num_tokens,
            "flags": sorted({*step["flags"], *said.flags}),
            "status": "failed" if failure else "ok",
            "failure": failure,
        }

    def _repair(self, steps: list[dict[str, Any]], rows: dict[int, dict[str, Any]]) -> None:
        """Check the answers that have to fit a schema; ask once more for those that do not."""
        again: list[dict[str, Any]] = []
        for step in steps:
            prompt, row = self.prompts[step["name"]], rows[id(step)]
            if step["kind"] != "answer" or prompt.json_schema is None or row["status"] != "ok":
                continue
            row["json"], problem = fitting_json(row["text"], prompt.json_schema)
            if problem:
                text = prompt.repair(step["prompt"], row["text"], problem)
                again.append({**step, "prompt": text, "step_id": f"{step['step_id']}-repair", "first": row})
        for step, said in zip(again, self._complete(again), strict=True):
            first, schema = step["first"], self.prompts[step["name"]].json_schema
            first["num_tokens"] += said.num_tokens
            made = fitting_json(said.text, schema or {})[0] if said.error is None else None
            if made is not None:
                first |= {"text": said.text, "json": made, "finish_reason": said.finish_reason}
            first["flags"] = sorted({*first["flags"], "invalid_json" if made is None else "repaired"})

    def _stamp(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "attempt": settings.attempt,
            "run_id": settings.run_id,
            "engine": settings.asked.engine.name,
            "model": settings.asked.model,
            "model_revision": settings.asked.revision,
            "schema_version": SCHEMA_VERSION,
        }
