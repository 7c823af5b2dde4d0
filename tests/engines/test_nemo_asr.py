"""Importing NeMo takes 15 to 30 s, building and loading the tiny models one or two."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_nemo
from contract import HEAVY, EngineContract, waveform

import s3_server
from dawnchorus import storage
from dawnchorus.config import EngineConfig
from dawnchorus.engines.base import Waveform
from dawnchorus.engines.nemo_asr import NemoAsrEngine
from dawnchorus.engines.nemo_text import probability
from dawnchorus.engines.staging import CACHE_VARIABLE
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Hypothesis

RATE = 16_000
SOUNDS = [waveform(s, RATE, i) for i, s in enumerate((0.5, 3.0, 1.2, 5.0, 2.0))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nemo")
    return {kind: getattr(tiny_nemo, kind)(folder / f"{kind}.nemo") for kind in ("tdt", "ctc", "canary")}


def engine(path: Path, **options: object) -> NemoAsrEngine:
    return NemoAsrEngine(EngineConfig(name="nemo_asr", model=str(path), threads=1, options=options))


@pytest.fixture(scope="module", params=["tdt", "ctc"])
def loaded(request: pytest.FixtureRequest, models: dict[str, Path]) -> NemoAsrEngine:
    loaded = engine(models[request.param])
    loaded.load()
    return loaded


class TestTransducer(EngineContract):
    config = EngineConfig(name="nemo_asr", threads=1)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def built(cls, models: dict[str, Path]) -> None:
        cls.config = EngineConfig(name="nemo_asr", threads=1, model=str(models["tdt"]))


class TestCtc(EngineContract):
    config = EngineConfig(name="nemo_asr", threads=1)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def built(cls, models: dict[str, Path]) -> None:
        cls.config = EngineConfig(name="nemo_asr", threads=1, model=str(models["ctc"]))


class TestCanary(EngineContract):
    config = EngineConfig(name="nemo_asr", threads=1)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def built(cls, models: dict[str, Path]) -> None:
        cls.config = EngineConfig(name="nemo_asr", threads=1, model=str(models["canary"]))


def test_a_canary_gives_one_segment_and_its_limit_is_nobody_elses(models: dict[str, Path]) -> None:
    """NeMo's own limit depends on the longest clip of the batch."""
    canary = engine(models["canary"])
    canary.load()
    found = canary.transcribe(SOUNDS)
    assert {"stop", "length"} == {h.finish_reason for h in found}
    for one, sound in zip(found, SOUNDS, strict=True):
        assert "<|" not in one.text
        assert [(s.start, s.end) for s in one.segments] == [(0.0, len(sound) / RATE)]
        assert canary.transcribe([sound]) == [one]
    other = engine(models["canary"], language="de")
    assert other.identity().facts != canary.identity().facts
    other.load()
    assert [h.text for h in other.transcribe(SOUNDS)] != [h.text for h in found]


def test_texts_are_those_of_nemo(loaded: NemoAsrEngine, models: dict[str, Path]) -> None:
    """The plain call of NeMo's documentation, one clip at a time."""
    from nemo.collections.asr.models import ASRModel

    path = models["tdt" if hasattr(loaded._model, "joint") else "ctc"]
    reference = ASRModel.restore_from(str(path), map_location="cpu")
    expected = [reference.transcribe([w], verbose=False)[0].text for w in SOUNDS[1:]]
    assert [h.text for h in loaded.transcribe(SOUNDS[1:])] == [" ".join(t.split()) for t in expected]
    assert any(expected)


def test_words_have_times_and_probabilities(loaded: NemoAsrEngine) -> None:
    for found, sound in zip(loaded.transcribe(SOUNDS), SOUNDS, strict=True):
        assert found.avg_logprob is not None
        assert found.avg_logprob < 0
        for segment in found.segments:
            assert "".join(w.word for w in segment.words).split() == segment.text.split()
            assert segment.start == segment.words[0].start
            assert segment.end == segment.words[-1].end <= len(sound) / RATE
            assert all(w.start < w.end and w.prob is not None and 0 < w.prob <= 1 for w in segment.words)


def test_a_short_clip_is_padded_behind_only(loaded: NemoAsrEngine) -> None:
    """NeMo alone would put a quarter of a second of silence before this clip, and move its words."""
    [short] = loaded.transcribe([SOUNDS[1][: RATE // 2]])
    [long] = loaded.transcribe([np.pad(SOUNDS[1][: RATE // 2], (0, RATE // 2))])
    assert short.text == long.text
    for one, other in zip(short.segments, long.segments, strict=True):
        assert one.start == other.start
        assert one.end == min(other.end, 0.5)


def test_probabilities_of_transducers_can_be_left_out(models: dict[str, Path]) -> None:
    plain, sure = engine(models["tdt"], confidence=False), engine(models["tdt"])
    plain.load()
    sure.load()
    for one, other in zip(plain.transcribe(SOUNDS), sure.transcribe(SOUNDS), strict=True):
        assert (one.text, [(s.start, s.end) for s in one.segments]) == (
            other.text,
            [(s.start, s.end) for s in other.segments],
        )
        assert one.avg_logprob is None
    assert plain.identity() == sure.identity()


def test_transducer_probabilities_are_those_of_the_joint(models: dict[str, Path]) -> None:
    """The first token's, computed by hand from the encoder's first frame and an empty history."""
    import torch

    loaded = engine(models["tdt"], confidence=True)
    loaded.load()
    sound = SOUNDS[1]
    model = loaded._model.eval()  # NeMo's transcribe() leaves the encoder's dropout on
    with torch.inference_mode():
        encoded, _ = model(
            input_signal=torch.tensor(sound)[None], input_signal_length=torch.tensor([len(sound)])
        )
        history, _, _ = model.decoder(
            targets=torch.zeros(1, 0, dtype=torch.long), target_length=torch.tensor([0])
        )
        scores = model.joint.joint(encoded[:, :, :1].transpose(1, 2), history.transpose(1, 2)[:, :1])
    expected = scores[0, 0, 0, : -len(tiny_nemo.DURATIONS)].softmax(-1).max().item()
    [raw] = model.transcribe([sound], batch_size=1, return_hypotheses=True, verbose=False)
    assert probability(raw.token_confidence[0], loaded._num_labels()) == pytest.approx(expected, abs=1e-3)


class SmallMemory(NemoAsrEngine):
    """Runs out of memory for more than two clips, and for the longest alone."""

    def _hear(self, batch: list[Waveform]) -> list[Hypothesis]:
        if len(batch) > 2 or len(batch[0]) == 5 * RATE:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super()._hear(batch)


def test_out_of_memory_splits_and_costs_one_clip_at_most(models: dict[str, Path]) -> None:
    small = SmallMemory(EngineConfig(name="nemo_asr", threads=1, model=str(models["tdt"])))
    small.load()
    found = small.transcribe(SOUNDS)
    assert found[3].error is not None
    assert (found[3].error.kind, found[3].error.transient) == ("out_of_memory", True)
    assert [h.text for i, h in enumerate(found) if i != 3] == [
        h.text for w in SOUNDS[:3] + SOUNDS[4:] for h in small.transcribe([w])
    ]


@pytest.mark.slow
def test_nothing_is_written_to_the_terminal(models: dict[str, Path]) -> None:
    """In a process of its own: what NeMo prints at import, at load and at every call."""
    code = (
        "import numpy as np; from dawnchorus.config import EngineConfig;"
        "from dawnchorus.engines.nemo_asr import NemoAsrEngine;"
        f"engine = NemoAsrEngine(EngineConfig(name='nemo_asr', threads=1, model={str(models['ctc'])!r}));"
        f"engine.identity(); import sys; found = [m for m in {HEAVY!r} if m in sys.modules];"
        "assert not found, found; engine.load();"
        "engine.transcribe([np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


class Payload:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def repacked(source: Path, target: Path, change: dict[str, Callable[[bytes], bytes]]) -> Path:
    """A `.nemo` file with some members changed."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            stream = old.extractfile(member)
            data = stream.read() if stream else b""
            data = change.get(Path(member.name).name, bytes)(data)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data) if member.isfile() else None)
    return target


@pytest.mark.parametrize("forced", [False, True])
def test_weights_that_would_run_code_are_refused(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    payload = pickle.dumps(Payload(tmp_path / "ran"))
    bad = repacked(models["ctc"], tmp_path / "bad.nemo", {"model_weights.ckpt": lambda _: payload})
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        engine(bad).load()
    assert not (tmp_path / "ran").exists()


def test_classes_from_elsewhere_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    target = b"_target_: nemo.collections.asr.modules.ConvASRDecoder"

    def other(config: bytes) -> bytes:
        assert target in config
        return config.replace(target, f"_target_: builtins.open\n  file: {ran}\n  mode: w".encode())

    bad = repacked(models["ctc"], tmp_path / "bad.nemo", {"model_config.yaml": other})
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        engine(bad).load()
    assert not ran.exists()


def test_a_file_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.nemo").write_bytes(b"not a tar")
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        engine(tmp_path / "model.nemo").load()
    with pytest.raises(EngineUnavailable, match="no file"):
        engine(Path("somewhere/else.nemo")).identity()
    with pytest.raises(EngineUnavailable, match="no file"):
        engine(tmp_path / "none.nemo").identity()


def test_a_model_in_a_bucket_is_fetched_once(
    s3_environment: s3_server.S3Server,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    url = f"{s3_environment.make_bucket()}/models/tiny.nemo"
    storage.put_file(url, str(models["ctc"]))
    stored = NemoAsrEngine(EngineConfig(name="nemo_asr", model=url, threads=1))
    assert stored.identity().facts == engine(models["ctc"]).identity().facts
    assert stored.identity().model == url
    stored.load()
    assert stored.transcribe(SOUNDS)[1].error is None
    [kept] = (tmp_path / "cache").rglob("*.nemo")
    before = kept.stat().st_mtime_ns
    NemoAsrEngine(EngineConfig(name="nemo_asr", model=url, threads=1)).identity()
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(EngineUnavailable, match="There is no"):
        NemoAsrEngine(EngineConfig(name="nemo_asr", model=url + "x.nemo", threads=1)).identity()


def test_a_folder_with_one_model_will_do_and_its_card_is_read(
    models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "model.nemo").symlink_to(models["ctc"])
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage:\n- en\n---\n")
    identity = engine(tmp_path).identity()
    assert identity.licence is not None
    assert (identity.licence.name, identity.english_only) == ("cc-by-4.0", True)
    assert identity.facts == engine(models["ctc"]).identity().facts
    assert not engine(models["ctc"]).identity().english_only
