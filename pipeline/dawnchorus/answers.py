"""What graph 3 has to do: transcripts that lack an answer, and committed answers that lack their row.

Reads key columns of `transcripts/` and `answers/`; also folds without Ray, for `dawnchorus assemble`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import duplicates, ledger, plan, storage
from dawnchorus.config import ResumeConfig
from dawnchorus.llm import Asked
from dawnchorus.prepare import Prepared
from dawnchorus.reconcile import Reconciliation
from dawnchorus.records import Seconds
from dawnchorus.schema import ASK_ROWS, TRANSCRIPTS
from dawnchorus.stages.publish import Fold

_AT_ONCE = 4
TOKENS_PER_SECOND = 3.4
"""Of speech: 150 words a minute, 1.35 tokens a word."""


@dataclass(frozen=True, slots=True)
class Job:
    """Prompts to the transcripts of an output. `recordings`: only these ids; `fingerprint`: only transcripts
    made with it; None: all. `run_url` is the folder of the run that asks, for its plans."""

    output: str
    run_url: str
    run_id: str
    asked: Asked
    resume: ResumeConfig
    recordings: pa.Array | None = None
    fingerprint: str | None = None


def job(prepared: Prepared, asked: Asked) -> Job:
    """The asking of a prepared run: about the transcripts of its own manifest and fingerprint."""
    resume = prepared.config.resume
    return Job(
        prepared.output,
        prepared.run_url,
        prepared.facts.run_id,
        asked,
        resume,
        prepared.manifest["recording_id"].combine_chunks(),
        None if resume.other_fingerprint == "keep-old" else prepared.facts.fingerprint,
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """What is left to ask: `rows` are `schema.ASK_ROWS`; counts are of answers, `transcribed` is the speech
    in the transcripts they are about, once for each. `failures`: how many of each kind, and the first one's
    reason; `flags`: how many answers have each."""

    rows: pa.Table
    num_transcripts: int
    num_done: int
    num_present: int
    num_flagged: int
    num_failed: int
    num_transient: int
    num_left: int
    transcribed: Seconds
    failures: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """About how many tokens of transcripts there are to read."""
        return round(self.transcribed * TOKENS_PER_SECOND)


@dataclass(slots=True)
class Answered:
    """What graph 3 has committed so far."""

    num_steps: int = 0
    num_answers: int = 0
    num_failed: int = 0
    num_tokens: int = 0
    last_commit: float = 0.0


def survey(job: Job, first: bool = True, reopened: pa.Array | None = None) -> Asking:
    """What is left of a job. `first`: with the kinds of final failures that `resume.retry_failed` names.
    `reopened` are ids of recordings to look at whatever their rows say: failures of theirs were tried again.
    """
    transcripts = _asked_about(job)
    ids = transcripts["recording_id"].combine_chunks()
    folded = ledger.read_folded(job.output)
    kinds = job.resume.retry_failed if first else None
    none = pa.array([], pa.string())
    unfinished, seconds = pc.is_in(ids, value_set=none if reopened is None else reopened), 0.0
    num_done = num_present = num_flagged = num_failed = num_transient = 0
    failures: dict[str, tuple[int, str]] = {}
    flags = Counter[str]()
    spoken = pc.fill_null(pc.struct_field(transcripts["coverage"], "transcribed"), 0.0)
    for prompt in job.asked.prompts:
        mine = _of_prompt(folded, prompt.name, job.asked.fingerprints[prompt.name], ids)
        failure = mine["failure"]
        failed = pc.equal(mine["status"], "failed")
        transient = pc.and_(failed, pc.fill_null(pc.struct_field(failure, "transient"), False))
        tries = pc.fill_null(pc.struct_field(failure, "attempts"), 0)
        again = pc.and_(transient, pc.less(tries, job.resume.max_attempts))
        if kinds is not None:
            kind = pc.fill_null(pc.struct_field(failure, "kind"), "")
            named = pc.is_in(kind, value_set=pa.array(kinds, pa.string())) if kinds else failed
            again = pc.or_(again, pc.or_(pc.and_(failed, named), _is_partial(mine)))
        final = mine.filter(pc.invert(again))["recording_id"].combine_chunks()
        left = pc.invert(pc.is_in(ids, value_set=final))
        unfinished = pc.or_(unfinished, left)
        seconds += pc.sum(spoken.filter(left)).as_py() or 0.0
        num_done += len(final)
        num_present += len(mine)
        flagged = pc.and_(pc.invert(failed), pc.greater(pc.list_value_length(mine["flags"]), 0))
        flags.update(pc.list_flatten(mine.filter(flagged)["flags"]).to_pylist())
        for why in mine.filter(failed)["failure"].to_pylist():
            num, message = failures.get(why["kind"], (0, why["message"]))
            failures[why["kind"]] = (num + 1, message)
        num_flagged += pc.sum(flagged).as_py() or 0
        num_failed += pc.sum(failed).as_py() or 0
        num_transient += pc.sum(transient).as_py() or 0
    parts = ledger.read_answers(job.output)
    if parts is not None:
        prints = pa.array(list(job.asked.fingerprints.values()), pa.string())
        parts = parts.filter(pc.is_in(parts["answer_fingerprint"], value_set=prints))
    left_answers = len(ids) * len(job.asked.prompts) - num_done
    return Asking(
        ask_rows(transcripts, ids.filter(unfinished), parts),
        len(ids),
        num_done,
        num_present,
        num_flagged,
        num_failed,
        num_transient,
        left_answers,
        seconds,
        failures,
        flags,
    )


def count(job: Job, found: Reconciliation) -> None:
    """Note in `found` how the answers of a job stand."""
    now = survey(job, first=False)
    found.num_answers = now.num_transcripts * len(job.asked.prompts)
    found.num_failed_answers, found.num_transient_answers = now.num_failed, now.num_transient
    found.num_missing_answers = found.num_answers - now.num_present
    found.num_flagged_answers = now.num_flagged
    found.answer_failures, found.answer_flags = dict(now.failures), dict(now.flags)


def seconds_per_answer(job: Job) -> Seconds | None:
    """Engine seconds that an answer of this model took in this output so far; None without any."""
    spent, num = 0.0, 0
    for info in storage.list_files(ledger.answers_url(job.output), ".parquet"):
        part = storage.read_table(info.url, ["kind", "engine", "model", "timing"])
        mine = pc.and_(
            pc.equal(part["engine"], job.asked.engine.name), pc.equal(part["model"], job.asked.model)
        )
        part = part.filter(mine)
        spent += pc.sum(pc.struct_field(part["timing"], "engine_seconds")).as_py() or 0.0
        num += pc.sum(pc.equal(part["kind"], "answer")).as_py() or 0
    return spent / num if num else None


def _asked_about(job: Job) -> pa.Table:
    """Ledger rows of the transcripts that a job is about: those in which something was said."""
    rows = ledger.read_transcripts(job.output)
    if rows is None:
        rows = TRANSCRIPTS.empty_table().append_column("home", pa.array([], pa.string()))
    rows = rows.filter(pc.equal(rows["status"], "ok"))
    if job.recordings is not None:
        rows = rows.filter(pc.is_in(rows["recording_id"], value_set=job.recordings))
    if job.fingerprint is not None:
        rows = rows.filter(pc.equal(rows["fingerprint"], job.fingerprint))
    return rows


def _is_partial(folded: pa.Table) -> pa.ChunkedArray:
    """Answers to which some failed piece is missing: trying failures again may mend them."""
    return pc.match_substring(pc.fill_null(pc.binary_join(folded["flags"], ","), ""), "partial")


def _of_prompt(folded: pa.Table | None, name: str, fingerprint: str, ids: pa.Array) -> pa.Table:
    """Folded answers of one prompt."""
    if folded is None:
        return ledger.NO_FOLDED
    mine = pc.and_(pc.equal(folded["name"], name), pc.equal(folded["fingerprint"], fingerprint))
    return folded.filter(pc.and_(mine, pc.is_in(folded["recording_id"], value_set=ids)))


def ask_rows(transcripts: pa.Table, recordings: pa.Array, parts: pa.Table | None) -> pa.Table:
    """`schema.ASK_ROWS` of these recordings, sorted by home file; `parts` has recording_id and part of
    committed steps."""
    rows = transcripts.filter(pc.is_in(transcripts["recording_id"], value_set=recordings))
    rows = pa.table({"home": rows["home"].cast(pa.string()), "recording_id": rows["recording_id"]})
    lists = pa.array([[]] * len(rows), pa.list_(pa.string()))
    if parts is not None and len(parts):
        slim = pa.table({"recording_id": parts["recording_id"], "part": parts["part"].cast(pa.string())})
        grouped = slim.group_by("recording_id").aggregate([("part", "distinct")])
        at = pc.index_in(rows["recording_id"], value_set=grouped["recording_id"].combine_chunks())
        lists = grouped["part_distinct"].combine_chunks().take(at.combine_chunks())
    return rows.append_column("parts", lists).sort_by("home").cast(ASK_ROWS)


def unfolded(output: str, wanted: Mapping[str, str]) -> pa.Table:
    """`schema.ASK_ROWS` of the recordings with an answer that is committed and not in their row: of the
    `wanted` fingerprints (by name), for other names the latest."""
    answers = ledger.read_answers(output)
    transcripts = None if answers is None else ledger.read_transcripts(output)
    if answers is None or transcripts is None:
        return ASK_ROWS.empty_table()
    answers = answers.filter(pc.equal(answers["kind"], "answer"))
    for name, fingerprint in wanted.items():
        other = pc.and_(
            pc.equal(answers["name"], name), pc.not_equal(answers["answer_fingerprint"], fingerprint)
        )
        answers = answers.filter(pc.invert(other))
    failed = pc.equal(answers["status"], "failed")
    is_wanted = pc.is_in(answers["name"], value_set=pa.array(list(wanted), pa.string()))
    latest = duplicates.first_of_each(
        answers,
        {
            "key": pc.binary_join_element_wise(answers["recording_id"], answers["name"], "/"),
            # One fingerprint: an answer before a failure. Several: the latest.
            "failed": pc.and_(is_wanted, failed),
            "attempt": pc.negate(answers["attempt"]),
            "status": failed,
        },
    )
    folded = ledger.read_folded(output)
    present = ledger.NO_FOLDED if folded is None else folded
    keys = _keys(latest, "answer_fingerprint")
    missing = pc.invert(pc.is_in(keys, value_set=_keys(present, "fingerprint").combine_chunks()))
    due = pc.unique(latest.filter(missing)["recording_id"])
    return ask_rows(transcripts, due, answers)


def _keys(table: pa.Table, fingerprint: str) -> pa.ChunkedArray:
    """What makes two answers to one recording the same."""
    flags = pc.binary_join(table["flags"], ",")
    tries = pc.fill_null(pc.struct_field(table["failure"], "attempts"), 0).cast(pa.string())
    columns = [table["recording_id"], table["name"], table[fingerprint], table["status"], tries]
    keys = pc.binary_join_element_wise(*columns, pc.fill_null(flags, ""), "/")
    return keys if isinstance(keys, pa.ChunkedArray) else pa.chunked_array([keys])


def stage_fold(
    output: str, run_url: str, epoch: int, asked: Iterable[Asked]
) -> tuple[plan.Snapshot, Fold] | None:
    """Write the list of home files with something to fold and return what folds it; None when there is
    nothing.

    Raises:
        Fenced: another run owns the output by now.
    """
    wanted, metadata = dict[str, str](), dict[str, str]()
    for a in asked:
        wanted |= a.fingerprints
        metadata |= a.metadata()
    rows = unfolded(output, wanted)
    if not len(rows):
        return None
    snapshot = plan.write_attempt(rows, "home", run_url, (output, epoch), "folds")
    return snapshot, Fold(snapshot, output, epoch, wanted, metadata)


def fold(output: str, run_url: str, epoch: int, asked: Iterable[Asked] = ()) -> int:
    """Fold what is due in this process, a few home files at a time; returns how many rows changed.

    Raises:
        Fenced: another run owns the output by now.
    """
    staged = stage_fold(output, run_url, epoch, asked)
    return 0 if staged is None else fold_staged(*staged)


def fold_staged(snapshot: plan.Snapshot, act: Fold) -> int:
    """Fold what is staged in this process; returns how many rows changed."""

    def one(home: int) -> int:
        return sum(t["num_new"][0].as_py() for t in act(pa.table({"id": [home]})))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return sum(pool.map(one, range(snapshot.num_groups)))
