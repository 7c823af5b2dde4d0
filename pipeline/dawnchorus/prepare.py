"""From a configuration to what has to be done: identity, fingerprint, manifest, ledger, pending work.

Reads, never writes to the output (`Prepared.save` apart), and needs no Ray: `dawnchorus plan` is this.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dawnchorus import __version__, forgotten, ids, ledger, lengths, manifest, plan, storage, tracing
from dawnchorus.assemble import RunFacts
from dawnchorus.config import RunConfig
from dawnchorus.differences import differences_of
from dawnchorus.engines import create, hub
from dawnchorus.engines.base import Engine, Identity
from dawnchorus.errors import FingerprintMismatch
from dawnchorus.kinds import refuse_unknown
from dawnchorus.llm import Asked, asked
from dawnchorus.records import Seconds
from dawnchorus.schema import RECORDINGS, SCHEMA_VERSION

_NO_IDS = pa.array([], pa.string())
_TELLING_SECONDS: Seconds = 60.0
"""Work of a run whose speed is worth believing: of less, most is Ray's and the model's start."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that could start: everything that follows from the configuration and the manifest alone.
    `manifest` lacks the `num_forgotten` rows that the output has forgotten; `summary` counts them still.
    `lengths` is what headers say, for the plan (`lengths.LENGTHS`)."""

    config: RunConfig
    output: str
    engine: Engine
    identity: Identity
    facts: RunFacts
    fingerprint_facts: Mapping[str, Any]
    manifest: pa.Table
    summary: manifest.Snapshot
    asked: Asked | None = None
    num_forgotten: int = 0
    lengths: pa.Table | None = None

    @property
    def run_url(self) -> str:
        """The run's folder."""
        return run_url(self.output, self.facts.run_id)

    @property
    def sampling_rate(self) -> int:
        """Hz of the waveforms the engine takes."""
        return self.engine.sampling_rate

    @property
    def max_chunk_seconds(self) -> Seconds:
        """Longest chunk: the configuration's, but never more than the engine's."""
        asked = self.config.chunking.max_seconds
        return self.engine.max_chunk_seconds if asked is None else min(asked, self.engine.max_chunk_seconds)

    def metadata(self) -> dict[str, str]:
        """Key-value metadata of the Parquet files: licence and attribution of the model."""
        licence = self.identity.licence or self.engine.licence
        languages = {"dawnchorus.languages": "English only"} if self.identity.english_only else {}
        return {
            "dawnchorus.version": __version__,
            "dawnchorus.schema_version": str(SCHEMA_VERSION),
            "dawnchorus.engine": self.facts.engine,
            "dawnchorus.model": self.facts.model,
            "dawnchorus.licence": f"{licence.name} {licence.url}".strip(),
            "dawnchorus.attribution": licence.attribution,
            **languages,
        }

    def save(self) -> None:
        """Write the run's manifest snapshot, unless this one is there, and `run.json`, which says when it was
        last begun."""
        mine = forgotten.Saved(len(self.manifest), self.num_forgotten, self.summary.digest)
        if forgotten.saved(self.run_url) != mine:
            said = {forgotten.COUNT_KEY: str(self.num_forgotten), forgotten.DIGEST_KEY: mine.digest}
            storage.put_atomic(
                storage.join(self.run_url, "manifest", "part-00000.parquet"),
                storage.parquet_bytes(self.manifest, said),
            )
        about = {
            "run_id": self.facts.run_id,
            "fingerprint": self.facts.fingerprint,
            "fingerprint_facts": dict(self.fingerprint_facts),
            "engine": self.facts.engine,
            "model": self.facts.model,
            "model_revision": self.facts.model_revision,
            "english_only": self.facts.english_only,
            "config": _anywhere(self.config.model_dump(mode="json")),
            "metadata": self.metadata(),
            "num_recordings": self.summary.num_recordings,
            "num_duplicates": self.summary.num_duplicates,
            "num_bad": self.summary.num_bad,
            "files": self.summary.files,
            "saved_at": time.time(),
        }
        text = storage.redact(json.dumps(about, indent=1))
        storage.put_atomic(storage.join(self.run_url, "run.json"), text.encode())


def run_url(output: str, run_id: str) -> str:
    """Folder of a run."""
    return storage.join(output, "_runs", run_id)


def _anywhere(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration that means the same models in any folder: `ask` reads it, wherever it is called. Of
    `notify.command` the program alone: its words may hold the address of a webhook, which is a secret."""
    for section in ("engine", "llm"):
        tree[section]["model"] = hub.absolute(tree[section]["model"])
    tree["notify"]["command"] = tree["notify"]["command"][:1]
    return tree


@tracing.span("prepare")
def prepare(config: RunConfig) -> Prepared:
    """Identify the engine, read the manifest, name the run.

    Raises:
        UserError: the engine, the manifest or the output cannot be used; says what to mend.
    """
    output = storage.absolute(config.output)
    engine = create(config.engine)
    identity = engine.identity()
    questions = asked(config)
    facts = {
        **config.fingerprint_facts(),
        "identity": dict(identity.facts),
        "schema_version": SCHEMA_VERSION,
    }
    fingerprint = ids.fingerprint(facts)
    with tempfile.TemporaryDirectory(prefix="dawnchorus-manifest-") as folder:
        summary = manifest.snapshot(config, folder)
        table = pq.read_table(folder, schema=RECORDINGS, memory_map=False)
    run_id = config.run_id or ids.run_id(storage.canonical_uri(config.output), summary.digest, fingerprint)
    run_facts = RunFacts(
        config.engine.name,
        identity.model,
        identity.revision,
        run_id,
        fingerprint,
        english_only=identity.english_only,
    )
    whole = Prepared(config, output, engine, identity, run_facts, facts, table, summary, questions)
    left = without_forgotten(whole)
    return replace(left, lengths=lengths.look(left.manifest))


def without_forgotten(prepared: Prepared) -> Prepared:
    """A run without the recordings that its output has forgotten by now."""
    left = forgotten.leave_out(prepared.manifest, prepared.output)
    num = prepared.num_forgotten + len(prepared.manifest) - len(left)
    return replace(prepared, manifest=left, num_forgotten=num)


@dataclass(frozen=True, slots=True)
class Survey:
    """What is done, what is left, how much audio that is; and of the latest run that tells, its
    rtfx and its GPU-hours per hour of audio."""

    pending: pa.Table
    pending_seconds: NDArray[np.float64]
    tries: dict[str, int]
    committed: dict[str, list[str]]
    num_recordings: int
    num_done: int
    num_ready: int
    num_bad: int
    total_seconds: Seconds
    estimated_share: float
    committed_chunks: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    measured_rtfx: float | None = None
    measured_gpus: float | None = None
    alone: pa.Array = field(default_factory=lambda: _NO_IDS)


def survey(prepared: Prepared, first: bool = True, alone: pa.Array = _NO_IDS) -> Survey:
    """Compare the manifest with what is committed.

    `first`: the first pass of a command, in which failures named by `resume.retry_failed` are tried
    again. `alone`: recordings to give a unit each.

    Raises:
        FingerprintMismatch: the output was made with other settings, and nothing says what to do.
    """
    config = prepared.config
    resume = config.resume if first else config.resume.model_copy(update={"retry_failed": None})
    transcripts = ledger.read_transcripts(prepared.output)
    refuse(prepared, transcripts)
    done = plan.done(transcripts, prepared.facts.fingerprint, resume)
    chunks = ledger.read_chunks(prepared.output, prepared.facts.fingerprint)
    settled = ledger.settle(chunks)
    retried = plan.retried(transcripts, resume)
    spent = pc.greater_equal(settled["attempts"], resume.max_attempts)
    ended = pc.or_(settled["complete"], pc.equal(settled["status"], "failed"))
    final = pc.and_(ended, pc.or_(pc.invert(settled["transient"]), spent))
    ready = settled.filter(final)["recording_id"].combine_chunks()
    ready = ready.filter(pc.invert(pc.is_in(ready, value_set=retried)))
    pending = plan.pending(prepared.manifest, done, ready)
    known = plan.known_seconds(prepared.manifest, prepared.lengths, transcripts)
    everything = plan.estimated_seconds(prepared.manifest, prepared.lengths, transcripts)
    mine = pc.is_in(prepared.manifest["recording_id"], value_set=pending["recording_id"].combine_chunks())
    tried = settled.filter(pc.greater(settled["attempts"], 0))
    committed = ledger.committed_ids(
        chunks, pending["recording_id"].combine_chunks(), without_failed=resume.retry_failed is not None
    )
    in_manifest = prepared.manifest["recording_id"]
    rtfx, gpus = measured(prepared)
    return Survey(
        pending=pending,
        pending_seconds=everything[mine.to_numpy(zero_copy_only=False)],
        tries=dict(zip(tried["recording_id"].to_pylist(), tried["attempts"].to_pylist(), strict=True)),
        committed=committed,
        num_recordings=len(prepared.manifest),
        num_done=pc.sum(pc.is_in(in_manifest, value_set=done)).as_py() or 0,
        num_ready=pc.sum(_only_in(in_manifest, ready, done)).as_py() or 0,
        num_bad=len(prepared.manifest) - prepared.manifest["failure"].null_count,
        total_seconds=float(everything.sum()),
        estimated_share=known.null_count / max(1, len(everything)),
        committed_chunks=sum(len(c) for c in committed.values()),
        failures=ledger.failures(prepared.manifest, transcripts, chunks, done, ready),
        measured_rtfx=rtfx,
        measured_gpus=gpus,
        alone=alone,
    )


def _only_in(ids: pa.ChunkedArray, these: pa.Array, not_those: pa.Array) -> pa.ChunkedArray:
    return pc.and_(pc.is_in(ids, value_set=these), pc.invert(pc.is_in(ids, value_set=not_those)))


def measured(prepared: Prepared) -> tuple[float | None, float | None]:
    """Audio seconds per wall second, and GPU-hours per hour of audio whatever their number, of the latest
    reported run of this model in this output that took long enough for its start not to count."""
    latest: dict[str, Any] | None = None
    mine = (prepared.facts.engine, prepared.facts.model)
    for info in storage.list_files(storage.join(prepared.output, "_runs"), "report.json"):
        about = json.loads(storage.read_bytes(info.url))
        tells = about["time"]["rtfx"] and about["time"]["wall_seconds"] >= _TELLING_SECONDS
        if tells and (about["model"]["engine"], about["model"]["model"]) == mine:
            latest = max(latest or about, about, key=lambda a: float(a["made_at"]))
    if latest is None:
        return None, None
    spent, gpus = latest["time"], latest["cost"]["gpu_hours"]
    return spent["rtfx"], gpus / (spent["audio_seconds"] / 3600) if gpus else None


def refuse(prepared: Prepared, transcripts: pa.Table | None) -> None:
    """Stop before anything is done that nobody can have meant.

    Raises:
        FingerprintMismatch: the output was made with other settings, and nothing says what to do.
        ConfigError: a kind of failure to try again does not exist.
    """
    refuse_other_fingerprint(prepared, transcripts)
    none = pa.array([], pa.string())
    there = none if transcripts is None else pc.struct_field(transcripts["failure"], "kind")
    refuse_unknown(prepared.config.resume.retry_failed, set(pc.unique(there).drop_null().to_pylist()))


def refuse_other_fingerprint(prepared: Prepared, transcripts: pa.Table | None) -> None:
    """Stop before results of two different settings are mixed in one output.

    Raises:
        FingerprintMismatch: shows what differs.
    """
    if transcripts is None or prepared.config.resume.other_fingerprint != "refuse":
        return
    mine = transcripts.filter(
        pc.is_in(transcripts["recording_id"], value_set=prepared.manifest["recording_id"].combine_chunks())
    )
    others = [f for f in pc.unique(mine["fingerprint"]).to_pylist() if f != prepared.facts.fingerprint]
    if not others:
        return
    differences = differences_of(prepared.output, prepared.fingerprint_facts, others[0])
    raise FingerprintMismatch(
        f"{prepared.config.output} holds transcripts made with other settings "
        f"(fingerprint {others[0]}, now {prepared.facts.fingerprint}){differences}.",
        "Say --redo to transcribe them again, --keep-old to keep them, or choose another output.",
    )
