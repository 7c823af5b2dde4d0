"""A run on a cluster, from a laptop: submit it as a Ray job, look at it, read its log, stop it.

Needs the base install only: the package travels with the job, so the cluster runs this version of it. The run
is the one that `dawnchorus run` would be, with the same id. The job's name is made of what a laptop can know
of it (where it reads, where it writes, how), so that nobody starts the same twice. Knows no tables.
"""

from __future__ import annotations

import http.client
import logging
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dawnchorus import auth, ids, logs, parcel, storage, tailing
from dawnchorus.config import RunConfig
from dawnchorus.engines import hub
from dawnchorus.errors import ConfigError, StorageUnavailable, Transient, UserError
from dawnchorus.progress import SUBMISSION_VARIABLE
from dawnchorus.records import Seconds

_LOST = (OSError, RuntimeError)
"""What Ray's client raises where nothing answers, or a proxy does: errors of `requests` are OSErrors.
AuthenticationError, which a session that ends brings at any call, is neither."""
_ALIVE = {"PENDING", "RUNNING"}
_JOB_KEY = "dawnchorus.job"
_OUTPUT_KEY = "dawnchorus.output"
_MOST_SUBMISSIONS = 1000
_START_SECONDS: Seconds = 60.0
_ANSWER_SECONDS: Seconds = 10.0
"""How long an address may be silent: without a limit one that is switched off costs two minutes."""
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of uploads and closed sockets, each with a level of its own."""


class Unreachable(UserError):
    """No job server answers, or not as one."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """One submission of a job to a cluster. `status` is Ray's: PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED;
    times are epoch seconds."""

    submission_id: str
    job: str
    output: str
    status: str
    message: str
    started: Seconds | None
    ended: Seconds | None

    @property
    def is_alive(self) -> bool:
        """Whether it waits or works."""
        return self.status in _ALIVE


def name(config: RunConfig) -> str:
    """The name of a job, made from what a laptop knows of the run: where to read, where to write, how.
    The manifest itself is read on the cluster, so a folder that grows keeps its job."""
    engine = config.engine
    facts = {k: str(v) for k, v in config.fingerprint_facts().items()}
    facts |= {k: str(getattr(config, k)) for k in ("run_id", "limit", "sample")}
    facts |= {"model": str(engine.model), "revision": str(engine.revision), "options": str(engine.options)}
    digest = ids.canonical_json({"input": storage.canonical_uri(config.input), "config": facts})
    return f"dawnchorus-{ids.run_id(storage.canonical_uri(config.output), digest, 'submitted')}"


def anywhere(config: RunConfig) -> RunConfig:
    """The same with local paths in full: the job does not run in this folder."""
    given = {key: getattr(config, key) for key in ("input", "output")}
    local = {k: storage.local_path(storage.absolute(v)) for k, v in given.items() if storage.is_local(v)}
    sections: dict[str, Any] = {
        name: section.model_copy(update={"model": hub.absolute(section.model)})
        for name, section in (("engine", config.engine), ("llm", config.llm))
    }
    if config.cost.prices is not None:
        prices = storage.local_path(storage.absolute(config.cost.prices))
        sections["cost"] = config.cost.model_copy(update={"prices": prices})
    return config.model_copy(update=local | sections)


def check(config: RunConfig, shared_paths: bool = False) -> None:
    """Make sure that the cluster can see what the configuration names, as far as a laptop can tell: what is
    on the nodes alone (`shared_paths`) it cannot.

    Raises:
        ConfigError: a path on this machine, without `shared_paths`.
        StorageUnavailable: input or output cannot be reached with the credentials of this machine.
    """
    named = {"input": config.input, "output": config.output, "cost.prices": config.cost.prices}
    for key, url in named.items():
        if url is not None and storage.is_local(url) and not shared_paths:
            raise ConfigError(
                f"{key} = {url} is a path on this machine, which the cluster cannot see.",
                "Use a bucket, such as s3://..., or say --shared-paths when every node has that path.",
            )
    if not storage.has_magic(config.input) and not storage.is_local(config.input):
        try:
            found = storage.exists(config.input) or storage.is_folder(config.input)
        except Transient as e:
            raise StorageUnavailable(
                f"{storage.redact(config.input)} cannot be reached: {e.message}", "Check it."
            ) from e
        if not found:
            raise StorageUnavailable(f"There is nothing at {storage.redact(config.input)}.", "Check input.")
    if not storage.is_local(config.output):
        storage.check_writable(storage.absolute(config.output))


class Cluster:
    """Ray's job server at `address`, such as `http://head:8265`.

    A cluster with token authentication wants RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH in the environment.
    """

    def __init__(self, address: str) -> None:
        """Raises Unreachable when nothing answers there; ConfigError for what is no address of the web."""
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"{address!r} is no address of a job server.",
                "It begins with http:// or https://, such as http://HEAD:8265.",
            )
        auth.set_mode()
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = address
        self._patience = time.monotonic() + _START_SECONDS
        with self._reached(ValueError):
            _knock(address)
            self._client = JobSubmissionClient(address)

    @contextmanager
    def _reached(self, *more: type[Exception]) -> Iterator[None]:
        """Raises Unreachable for whatever of Ray's says that nobody answers, or not to us."""
        from ray.exceptions import AuthenticationError

        lost: tuple[type[Exception], ...] = (*_LOST, AuthenticationError, *more)
        try:
            yield
        except lost as e:
            raise _unreachable(self.address, e) from e

    def submissions(self, output: str) -> list[Submitted]:
        """Ours among the cluster's jobs that write to `output` (an absolute URL), oldest first."""
        where = _place(storage.redact(output))
        return [s for s in self._all() if _place(s.output) == where]

    def _all(self) -> list[Submitted]:
        with self._reached():
            jobs = self._client.list_jobs()
        ours = [_submitted(j) for j in jobs if j.submission_id and _JOB_KEY in (j.metadata or {})]
        return sorted(ours, key=lambda s: (s.started or 0.0, s.submission_id))

    def submit(self, config: RunConfig) -> tuple[Submitted, bool]:
        """Start a run, or find it at work; says whether it is new.

        Two laptops that submit one run at once start it once: the submission's id is its number in the job,
        and Ray refuses an id twice.
        """
        job = name(config)
        for _ in range(_MOST_SUBMISSIONS):
            before = [s for s in self._all() if s.job == job]
            alive = [s for s in before if s.is_alive]
            if alive:
                return alive[-1], False
            submission_id = next_id(job, before)
            if self._start(submission_id, job, config):
                [new] = [s for s in self._all() if s.submission_id == submission_id]
                return new, True
            time.sleep(0.5)
        raise UserError(f"{self.address} does not take {job}.", "Look at its dashboard.")

    def _start(self, submission_id: str, job: str, config: RunConfig) -> bool:
        """Submit under this id; False when the id was taken meanwhile."""
        about = {_JOB_KEY: job, _OUTPUT_KEY: storage.redact(config.output)}
        with tempfile.TemporaryDirectory(prefix="dawnchorus-submit-") as folder:
            packed = parcel.pack(Path(folder), config)
            env = {SUBMISSION_VARIABLE: submission_id, logs.VARIABLE: "json"}
            with self._reached():
                try:
                    self._client.submit_job(
                        entrypoint=parcel.ENTRYPOINT,
                        submission_id=submission_id,
                        runtime_env={"working_dir": str(packed), "env_vars": env},
                        metadata=about,
                    )
                except RuntimeError as e:
                    if "already exists" in str(e):
                        return False
                    if "try again later" in str(e) and time.monotonic() < self._patience:
                        # A head answers before it can take a job.
                        time.sleep(1.0)
                        return False
                    raise UserError(f"{self.address} refused the run: {_first(e)}", "Look at its log.") from e
        return True

    def lines(self, submission_id: str, follow: bool = False) -> Iterator[str]:
        """The run's log, in pieces; with `follow` until it ends."""
        import aiohttp

        with self._reached(aiohttp.ClientError):
            if follow:
                yield from tailing.read(self._client.tail_job_logs(submission_id))
            else:
                yield self._client.get_job_logs(submission_id)

    def stop(self, submission_id: str) -> bool:
        """Ask Ray to end it: SIGTERM, and SIGKILL after RAY_JOB_STOP_WAIT_TIME_S (3 s by default), which is
        too short to publish: `dawnchorus stop` first asks the run itself."""
        with self._reached():
            return bool(self._client.stop_job(submission_id))


def _place(output: str) -> str:
    """The same for an output with and without a slash at its end."""
    return storage.absolute(output).rstrip("/")


def next_id(job: str, before: list[Submitted]) -> str:
    """The id of a job's next submission: one above the highest, since some may have been deleted."""
    numbers = [s.submission_id.rpartition("-")[2] for s in before]
    return f"{job}-{1 + max((int(n) for n in numbers if n.isdecimal()), default=0)}"


def _submitted(job: Any) -> Submitted:
    def seconds(milliseconds: int | None) -> Seconds | None:
        return milliseconds / 1000 if milliseconds else None

    return Submitted(
        job.submission_id,
        job.metadata[_JOB_KEY],
        job.metadata.get(_OUTPUT_KEY, ""),
        str(getattr(job.status, "value", job.status)),
        (job.message or "").strip(),
        seconds(job.start_time),
        seconds(job.end_time),
    )


def _knock(address: str) -> None:
    """Raises ConnectionError when nothing answers at an address of the web within `_ANSWER_SECONDS`, or
    nothing that speaks HTTP: Ray's other ports do not."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=_ANSWER_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answers, and may want a token, which Ray's client brings
    except (OSError, http.client.HTTPException) as e:
        raise ConnectionError(" ".join(str(getattr(e, "reason", e)).split()) or type(e).__name__) from e


def _unreachable(address: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"No Ray job server answers at {address}: {_first(error)}",
        "Check the address (http://HEAD:8265, or a forwarded port), and RAY_AUTH_TOKEN if it wants one.",
    )


def _first(error: BaseException) -> str:
    text = storage.redact(str(error)).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
