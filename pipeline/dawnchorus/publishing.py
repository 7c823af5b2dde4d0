"""What graph 2 has to do: which settled recordings are not in `transcripts/` yet, home by home.

Also runs it without Ray, for `dawnchorus assemble` and for publishing while a run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import earlier, ledger, plan, storage, tracing
from dawnchorus.assemble import RunFacts
from dawnchorus.config import PublishConfig
from dawnchorus.prepare import Prepared
from dawnchorus.stages.publish import Publish

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One run's publishing: its output, identity, manifest and metadata."""

    output: str
    run_url: str
    facts: RunFacts
    metadata: dict[str, str]
    manifest: pa.Table
    config: PublishConfig


def job(prepared: Prepared) -> Job:
    """The publishing of a prepared run."""
    return Job(
        prepared.output,
        prepared.run_url,
        prepared.facts,
        prepared.metadata(),
        prepared.manifest,
        prepared.config.publish,
    )


def jobs_of(output: str) -> Iterator[Job]:
    """The publishing of every run that `output` holds, newest first, from what the runs saved; without
    the bad lines that a newer run has read again."""
    found = []
    for info in storage.list_files(storage.join(output, "_runs"), "run.json"):
        found.append((json.loads(storage.read_bytes(info.url)), storage.parent(info.url)))
    newer: list[earlier.Reading] = []
    for about, url in sorted(found, key=lambda f: -f[0]["saved_at"]):
        names = ("engine", "model", "model_revision", "run_id", "fingerprint")
        parts = [
            storage.read_table(f.url) for f in storage.list_files(storage.join(url, "manifest"), ".parquet")
        ]
        config = PublishConfig.model_validate(about["config"]["publish"])
        facts = RunFacts(**{n: about[n] for n in names}, english_only=about.get("english_only", False))
        mine = earlier.reading_of(about, url)
        manifest = earlier.without_void(pa.concat_tables(parts), mine, newer)
        newer.append(mine)
        yield Job(output, url, facts, about["metadata"], manifest, config)


def due(
    settled: pa.Table,
    transcripts: pa.Table | None,
    manifest: pa.Table,
    fingerprint: str,
    replace: bool = True,
) -> pa.Array:
    """Ids of the recordings whose row is missing or stale: settled, and not in `transcripts/` under this
    fingerprint with the same decode, number of tries and hope of another one. Unreadable manifest lines
    without a row are due as well. Without `replace`, rows of other fingerprints are left as they are.
    """
    ready = _ready(settled)
    ready = ready.filter(pc.is_in(ready["recording_id"], value_set=manifest["recording_id"].combine_chunks()))
    bad = manifest.filter(pc.is_valid(manifest["failure"]))["recording_id"].combine_chunks()
    if transcripts is None:
        return pa.concat_arrays([ready["recording_id"].combine_chunks(), bad])
    mine = transcripts.filter(pc.equal(transcripts["fingerprint"], fingerprint))
    tries = pc.fill_null(pc.struct_field(mine["failure"], "attempts"), 0)
    transient = pc.fill_null(pc.struct_field(mine["failure"], "transient"), False)
    published = _keys(mine, tries, transient).combine_chunks()
    current = _keys(ready, ready["attempts"], ready["transient"])
    stale = pc.invert(pc.is_in(current, value_set=published))
    unlisted = pc.invert(pc.is_in(bad, value_set=mine["recording_id"].combine_chunks()))
    ids = pa.concat_arrays([ready.filter(stale)["recording_id"].combine_chunks(), bad.filter(unlisted)])
    if replace:
        return ids
    others = transcripts.filter(pc.not_equal(transcripts["fingerprint"], fingerprint))["recording_id"]
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others.combine_chunks())))


def _ready(settled: pa.Table) -> pa.Table:
    return settled.filter(pc.or_(settled["complete"], pc.equal(settled["status"], "failed")))


def _keys(table: pa.Table, tries: pa.ChunkedArray, transient: pa.ChunkedArray) -> pa.ChunkedArray:
    """What makes two outcomes of a recording the same: its decode, how often it was tried, and whether it
    deserves another try."""
    parts = (pc.fill_null(table["decode_id"], ""), tries.cast(pa.string()), transient.cast(pa.string()))
    return pc.binary_join_element_wise(table["recording_id"], *parts, "/")


def told_otherwise(job: Job, settled: pa.Table, transcripts: pa.Table | None) -> pa.Array:
    """Ids of the recordings that an older manifest gave another reference or other columns, and that have a
    row with those: transcribed already, to be assembled again. What this manifest leaves out stays."""
    found = [pa.array([], pa.string())]
    if transcripts is None:
        return found[0]
    ready = _ready(settled)["recording_id"].combine_chunks()
    about = pc.is_in(transcripts["recording_id"], value_set=ready)
    mine = pc.equal(transcripts["fingerprint"], job.facts.fingerprint)
    others = pc.not_equal(transcripts["run_id"], job.facts.run_id)
    old = transcripts.filter(pc.and_(pc.and_(about, mine), others))
    columns = ["recording_id", "text", "metadata"]
    told = job.manifest.select(columns)
    told = told.filter(pc.or_kleene(pc.is_valid(told["text"]), pc.not_equal(told["metadata"], "{}")))
    told = told.filter(pc.is_in(told["recording_id"], value_set=old["recording_id"].combine_chunks()))
    homes = old.filter(pc.is_in(old["recording_id"], value_set=told["recording_id"].combine_chunks()))["home"]
    for home in pc.unique(homes).to_pylist():
        said = storage.read_table(storage.join(ledger.transcripts_url(job.output), home), columns)
        now = told.filter(pc.is_in(told["recording_id"], value_set=said["recording_id"].combine_chunks()))
        was = {r["recording_id"]: r for r in said.to_pylist()}
        other = [r["recording_id"] for r in now.to_pylist() if r != was[r["recording_id"]]]
        found.append(pa.array(other, pa.string()))
    return pa.concat_arrays(found)


def stage(
    job: Job, epoch: int, replace: bool = True, texts: bool = False
) -> tuple[plan.Snapshot, Publish] | None:
    """Write the attempt's list of home files and return what publishes them; None when none is due.
    With `texts`, rows are due as well that have the reference or the columns of an older manifest.

    Raises:
        Fenced: another run owns the output by now.
    """
    transcripts = ledger.read_transcripts(job.output)
    chunks = ledger.read_chunks(job.output, job.facts.fingerprint)
    settled = ledger.settle(chunks)
    recordings = due(settled, transcripts, job.manifest, job.facts.fingerprint, replace)
    if texts:
        other = told_otherwise(job, settled, transcripts)
        recordings = pc.unique(pa.concat_arrays([recordings, other]))
    if not len(recordings):
        return None
    seconds = plan.estimated_seconds(job.manifest)
    homes = plan.assign_homes(job.manifest, seconds, transcripts, job.facts.run_id, job.config)
    rows = plan.home_rows(job.manifest, homes, recordings, chunks)
    snapshot = plan.write_attempt(rows, "home", job.run_url, (job.output, epoch), "homes")
    return snapshot, Publish(snapshot, job.output, epoch, job.facts, job.metadata)


@tracing.span("publish")
def publish(job: Job, epoch: int, replace: bool = True, texts: bool = False) -> int:
    """Publish what is due in this process, a few home files at a time; returns how many rows are new.
    Without `replace`, rows that other settings made stay; `texts`: see `stage`.

    Raises:
        Fenced: another run owns the output by now.
    """
    num_new = 0
    staged = stage(job, epoch, replace, texts)
    if staged is not None:
        snapshot, act = staged

        def one(home: int) -> int:
            return sum(t["num_new"][0].as_py() for t in act(pa.table({"id": [home]})))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            num_new = sum(pool.map(one, range(snapshot.num_groups)))
    remove_void(job, epoch)
    return num_new


def remove_void(job: Job, epoch: int) -> int:
    """Take away rows for lines of a manifest that this run read again; after publishing, one file at a time.
    Returns how many.

    Raises:
        Fenced: another run owns the output by now.
    """
    return earlier.remove(job.output, job.facts.run_id, job.manifest, epoch)
