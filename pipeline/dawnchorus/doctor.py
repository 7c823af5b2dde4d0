"""`dawnchorus doctor`: is everything here that a run needs? One `Check` each, with its fix.

Tries things out rather than looking for files: decodes a sound, writes a probe. Starts no cluster and
loads no model.
"""

from __future__ import annotations

import importlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata

import psutil

from dawnchorus import installing, storage
from dawnchorus.config import AudioConfig, EngineConfig, RunConfig
from dawnchorus.engines import ENGINES, LANGUAGE_MODELS, create, create_language_model, devices, missing
from dawnchorus.engines.base import Engine, LanguageModel
from dawnchorus.errors import DataError, UserError
from dawnchorus.manifest.sources import expand_range

_GIB = 1 << 30
_MIN_SCRATCH_BYTES = 2 * _GIB
_MIN_SHM_BYTES = _GIB // 2
_MIN_MEMORY_BYTES = 2 * _GIB
_PYTHONS = ((3, 11), (3, 15))
_CODECS = ("mp3", "aac", "alac", "opus", "vorbis", "flac", "wmav2", "amrnb", "ac3", "gsm_ms", "pcm_mulaw")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_TEST_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and, when it is not `ok`, how to mend it."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def checks(config: RunConfig | None = None) -> list[Check]:
    """Look at this machine and, with a configuration, at its engine and its storage."""
    return [replace(c, fix="") if c.ok else c for c in _checks(config)]


def _checks(config: RunConfig | None) -> Iterator[Check]:
    yield _python()
    yield _ray()
    yield from _engines(config)
    yield from _audio()
    if config is None or config.vad.enabled:
        yield _vad()
    if config is not None:
        yield _tried("input", lambda: _input(config.input))
        yield _tried("output", lambda: _output(config.output))
    yield _scratch(config.audio if config else AudioConfig())
    yield from _shared_memory()
    yield _machine()
    yield from _environment()


def _tried(name: str, look: Callable[[], str]) -> Check:
    """`look` returns what it found; what it raises on purpose is what is wrong."""
    try:
        return Check(name, True, look())
    except UserError as e:
        return Check(name, False, e.message, e.fix)
    except DataError as e:
        return Check(name, False, e.message, "Check the address, the credentials and the network.")


def _python() -> Check:
    low, high = _PYTHONS
    said = f"{platform.python_version()} at {sys.executable}"
    wanted = f"{low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    return Check("python", low <= sys.version_info[:2] < high, said, f"Use Python {wanted}.")


def _pinned(package: str) -> str | None:
    """The exact version of a package that this distribution asks for."""
    for line in metadata.requires("dawnchorus") or ():
        if found := re.match(rf"{package}(?:\[[^\]]*\])?==([\w.]+)", line):
            return found.group(1)
    return None


def _ray() -> Check:
    wanted = _pinned("ray")
    fix = f"pip install 'ray[data]=={wanted}'"
    try:
        importlib.import_module("ray.data")
        found = metadata.version("ray")
    except ImportError as e:
        return Check("ray", False, f"cannot be imported: {e}.", fix)
    address = os.environ.get("RAY_ADDRESS")
    where = f"; RAY_ADDRESS is set: runs join {storage.redact(address)}" if address else ""
    return Check("ray", found == wanted, f"{found} (pinned: {wanted}){where}", fix)


def _engines(config: RunConfig | None) -> Iterator[Check]:
    """The configured engines have to be here with their models; of others only whether they are installed.

    (To look for a model that nobody asked for could take a download, or a minute without a network.)
    """
    speech = config.engine if config else EngineConfig()
    answering = config.llm_engine() if config and config.llm.prompts else None
    elsewhere = bool((config and config.workers.address) or os.environ.get("RAY_ADDRESS"))

    def here(engine: EngineConfig) -> str | None:
        return None if elsewhere else engine.device

    for name in {**ENGINES, **LANGUAGE_MODELS}:
        if name == speech.name:
            yield _tried(f"engine {name}", partial(_identity, name, lambda: create(speech), here(speech)))
        elif name != "fake" and (answering is None or name != answering.name):
            yield Check(f"engine {name}", True, _installed(name))
    if answering is not None:
        model = partial(create_language_model, answering)
        look = partial(_identity, answering.name, model, here(answering))
        yield _tried(f"language model {answering.name}", look)


def _installed(name: str) -> str:
    modes = {"transcribes": name in ENGINES, "has an LLM mode": name in LANGUAGE_MODELS}
    able = " and ".join(m for m, has in modes.items() if has)
    fix = missing(name)
    return f"installed; {able}" if fix is None else f"not installed, and not asked for; {able}: {fix}"


def _identity(name: str, make: Callable[[], Engine | LanguageModel], device: str | None) -> str:
    """Which model an engine has, by what licence; an engine says more of the audio it takes. `device` has
    to be usable here; None: it is needed elsewhere."""
    if fix := missing(name):
        raise UserError("Its packages are not installed.", fix)
    try:
        engine = make()
        identity = engine.identity()
    except ImportError as e:
        raise UserError(f"{e}.", "Install the package that cannot be imported anew.") from e
    if device is not None:
        devices.require(name, device)
    licence = identity.licence or engine.licence
    said = [f"{identity.model}, revision {identity.revision[:16]}"]
    if isinstance(engine, Engine):
        said.append(f"{engine.sampling_rate} Hz, chunks up to {engine.max_chunk_seconds:g} s")
    if identity.english_only:
        said.append("English only")
    return ", ".join([*said, f"licence {licence.name}"])


def _audio() -> Iterator[Check]:
    fix = installing.command("audio")
    try:
        sndfile = importlib.import_module("soundfile")
        av = importlib.import_module("av")
        soxr = importlib.import_module("soxr")
    except (ImportError, OSError) as e:
        yield Check("audio libraries", False, f"{e}.", fix)
        return
    missing = [c for c in _CODECS if c not in av.codecs_available]
    ffmpeg = getattr(av, "ffmpeg_version_info", "")
    versions = f"libsndfile {sndfile.__libsndfile_version__}, FFmpeg {ffmpeg}, soxr {soxr.__version__}"
    if missing:
        yield Check("audio libraries", False, f"{versions}; without {', '.join(missing)}", fix)
    else:
        yield Check("audio libraries", True, f"{versions}; {', '.join(_CODECS)}")
    yield _tried("decoding", _decode_a_sound)


def _decode_a_sound() -> str:
    """Decode a generated second of sound in the sandbox that runs use."""
    from dawnchorus.audio import Decoder

    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_TEST_HZ)
        file.writeframes(b"\x00\x10" * _TEST_HZ)
    with tempfile.NamedTemporaryFile(suffix=".wav") as f, Decoder(AudioConfig()) as decoder:
        f.write(data.getvalue())
        f.flush()
        stream = decoder.open(f.name, _TEST_HZ)
        num_blocks = sum(1 for _ in stream)
        if stream.failure is not None or not num_blocks:
            reason = stream.failure.message if stream.failure else "nothing came out"
            raise UserError(
                f"A plain WAV file is not decoded: {reason}.",
                f"{installing.command('audio')} --force-reinstall",
            )
    return "a test file, in a process of its own"


def _vad() -> Check:
    def look() -> str:
        from dawnchorus.vad import SpeechDetector

        return SpeechDetector().version

    return _tried("voice activity detection", look)


def _input(address: str) -> str:
    found = [_one_input(part) for part in expand_range(address)]
    return found[0] if len(found) == 1 else f"{len(found):,} shards can be read"


def _one_input(address: str) -> str:
    url = storage.absolute(address)
    place = storage.readable(url)
    if storage.exists(url):
        return f"{place} can be read"
    if storage.is_folder(url):
        return f"{place} is a folder"
    if storage.has_magic(address):
        if found := storage.glob(url):
            return f"{place} matches {len(found):,} files"
        raise UserError(
            f"{place} matches nothing.", "Check the pattern; quote it, so that the shell leaves it alone."
        )
    raise UserError(f"There is nothing at {place}.", "Check the path of `input`.")


def _output(address: str) -> str:
    url = storage.absolute(address)
    storage.check_writable(url)
    return f"{storage.readable(url)} can be written, and only once where it has to be"


def _scratch(audio: AudioConfig) -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    said = f"{_size(free)} free in {folder}"
    if free < audio.max_file_bytes:
        limit = _size(audio.max_file_bytes)
        said += f"; larger remote files cannot be fetched (audio.max_file_bytes allows {limit})"
    fix = f"Free some space, or set TMPDIR to a disk with {_size(_MIN_SCRATCH_BYTES)} or more."
    return Check("scratch space", free >= _MIN_SCRATCH_BYTES, said, fix)


def _shared_memory() -> Iterator[Check]:
    """Ray's object store lies in /dev/shm; too small a one and it goes to disk."""
    if os.path.isdir("/dev/shm"):
        usage = shutil.disk_usage("/dev/shm")
        said = f"/dev/shm has {_size(usage.free)} free of {_size(usage.total)}"
        fix = "Give the container more, for example: docker run --shm-size=2g"
        yield Check("shared memory", usage.free >= _MIN_SHM_BYTES, said, fix)


def _machine() -> Check:
    memory = psutil.virtual_memory()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = f"{cpus} CPUs, {_size(memory.available)} of {_size(memory.total)} memory available, {_gpus()}"
    fix = f"Close other programs, or use a machine with {_size(_MIN_MEMORY_BYTES)} of free memory."
    return Check("machine", memory.available >= _MIN_MEMORY_BYTES, said, fix)


def _gpus() -> str:
    """What nvidia-smi says, in words."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no GPU seen"
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"nvidia-smi does not answer ({type(e).__name__})"
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return (
        f"{len(names)} GPU: {'; '.join(names)}"
        if done.returncode == 0 and names
        else "no GPU seen by nvidia-smi"
    )


def _environment() -> Iterator[Check]:
    """Proxies that would stand between this machine and itself, or the store."""
    found = {n: v for n in _PROXIES if (v := os.environ.get(n) or os.environ.get(n.lower()))}
    if not set(found) - {"NO_PROXY"}:
        return
    said = ", ".join(f"{n}={storage.redact(v)}" for n, v in found.items())
    near = {h.strip() for h in found.get("NO_PROXY", "").split(",")}
    fix = "export NO_PROXY=localhost,127.0.0.1 (and the names of your own stores)"
    yield Check("proxy", bool(near & {"localhost", "127.0.0.1", "*"}), said, fix)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:,.1f} GiB"
