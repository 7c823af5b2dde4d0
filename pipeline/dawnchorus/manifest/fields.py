"""One manifest row, as a mapping of fields -> Recording, or a Terminal failure of stage `manifest`.

Pure. Relative paths resolve against the manifest's folder. Knows NeMo-like fields and Lhotse cuts, and
no file format.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from dawnchorus import ids
from dawnchorus.errors import ConfigError, Terminal
from dawnchorus.records import Recording, Seconds
from dawnchorus.storage import absolute, canonical_uri, file_uri, is_known, is_local, local_path

PATH_FIELDS = ("audio_filepath", "audio_file", "audio_path", "audio", "path")
"""Names of the field with the audio's address; the first that holds text is it."""

MAX_METADATA_CHARS = 1 << 20
_LONGEST_SECONDS = 3.2e8  # ten years: beyond it a time is a mistake, not a recording
_CUT_TYPES = {"MonoCut", "MultiCut"}
_OTHER_CUT_TYPES = {"MixedCut", "PaddingCut"}
_OWN_FIELDS = ("offset", "duration", "text")
_STRICT_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_HARMLESS_TRANSFORMS = {"Resample"}


def bad(kind: str, message: str) -> Terminal:
    """The failure of a manifest row."""
    return Terminal(kind, message, "manifest")


def recording_of(fields: Mapping[str, Any], base: str, shape: str = "auto") -> Recording:
    """The Recording a row names. `shape` is `nemo`, `lhotse`, or `auto`: by the row's fields.

    Raises:
        Terminal: `missing_path`, `bad_path`, `bad_number`, `negative_offset`, `negative_duration`,
            `unsupported_cut`, `too_large`.
    """
    if shape == "lhotse" or (shape == "auto" and is_cut(fields)):
        fields = _fields_of_cut(fields)
    name = next((n for n in PATH_FIELDS if isinstance(fields.get(n), str) and fields[n].strip()), None)
    if name is None:
        raise bad("missing_path", f"The row has no {PATH_FIELDS[0]}.")
    path, uri = addresses(fields[name], base)
    offset = _seconds(fields.get("offset"), "offset")
    length = _seconds(fields.get("duration"), "duration")
    if offset is not None and length == 0:
        raise bad("bad_number", "duration is 0: the slice is empty.")
    text = fields.get("text")
    if text is not None and not isinstance(text, str):
        text = str(text)
    rest = {k: v for k, v in fields.items() if k != name and k not in _OWN_FIELDS}
    return Recording(
        recording_id=ids.recording_id(uri, offset, None if offset is None else length),
        audio_filepath=path,
        offset=offset,
        duration=None if offset is None else length,
        claimed_duration=(length or None) if offset is None else None,
        text=None if text is None else _utf8(text),
        metadata=_canonical(rest) if rest else "{}",
    )


def addresses(path: str, base: str) -> tuple[str, str]:
    """(where to read it, what identifies it) of an audio address. Local paths stay plain paths. `base`
    is a URL or an absolute local path.

    Raises:
        Terminal: `bad_path`.
    """
    if "\x00" in path or not _fits_utf8(path):
        raise bad("bad_path", "The audio's address has characters that no file name can have.")
    if base.startswith("/") and "://" not in path and not path.startswith("~"):
        # The usual case, in a third of the time.
        plain = os.path.abspath(os.path.join(base, path))
        return plain, file_uri(plain)
    try:
        uri = canonical_uri(path, base)
        if not is_local(uri):
            if not is_known(uri):
                raise bad("bad_path", f"{uri.partition(':')[0]}:// is not a kind of storage known here.")
            return absolute(path, base), uri
    except (ConfigError, ValueError) as e:
        raise bad("bad_path", f"The audio's address cannot be used: {e}") from e
    plain = local_path(uri)
    # A name that is not UTF-8 fits into no table as it is.
    return (plain if _fits_utf8(plain) else uri), uri


def is_cut(fields: Mapping[str, Any]) -> bool:
    """Whether a row is a Lhotse cut."""
    kind = fields.get("type")
    if kind in _CUT_TYPES or kind in _OTHER_CUT_TYPES:
        return True
    return isinstance(fields.get("recording"), Mapping) and "start" in fields


def _fields_of_cut(cut: Mapping[str, Any]) -> dict[str, Any]:
    """A Lhotse cut in NeMo's words. Cuts are always slices."""
    recording = cut.get("recording")
    if cut.get("type") in _OTHER_CUT_TYPES or not isinstance(recording, Mapping):
        raise bad("unsupported_cut", "Only Lhotse MonoCut and MultiCut with their recording can be read.")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], Mapping):
        raise bad("unsupported_cut", "The cut's recording must have exactly one source.")
    if sources[0].get("type", "file") not in ("file", "url"):
        raise bad("unsupported_cut", f"A source of type {sources[0].get('type')!r} is not read.")
    transforms = recording.get("transforms") or []
    names = {t.get("name") if isinstance(t, Mapping) else str(t) for t in transforms}
    if names - _HARMLESS_TRANSFORMS:
        raise bad("unsupported_cut", "The cut's recording has transforms, which are not applied here.")
    channels, mine = sources[0].get("channels") or [0], cut.get("channel")
    if not isinstance(channels, list):
        raise bad("unsupported_cut", "The channels of the cut's source are no list.")
    asked = mine if isinstance(mine, list) else [mine]
    if mine is not None and sorted(map(str, asked)) != sorted(map(str, channels)):
        raise bad(
            "unsupported_cut",
            f"The cut is of channel {mine} of {len(channels)}, and a manifest cannot choose one: list the "
            "recording once, and set audio.channels.",
        )
    spoken = [s for s in cut.get("supervisions") or [] if isinstance(s, Mapping)]
    texts = [s["text"].strip() for s in sorted(spoken, key=_start) if isinstance(s.get("text"), str)]
    known = {"type", "start", "duration", "recording", "supervisions", "features"}
    rest = {k: v for k, v in cut.items() if k not in known and k not in PATH_FIELDS}
    if spoken:
        rest["supervisions"] = spoken
    return rest | {
        "recording": recording.get("id"),
        "audio_filepath": sources[0].get("source"),
        "offset": cut.get("start") or 0.0,
        "duration": cut.get("duration"),
        "text": " ".join(t for t in texts if t) or None,
    }


def _start(supervision: Mapping[str, Any]) -> float:
    start = supervision.get("start")
    return float(start) if isinstance(start, (int, float)) else 0.0


def _seconds(value: Any, name: str) -> Seconds | None:
    """A time; None and empty text are no time. Text is accepted because CSV has nothing else."""
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds) or abs(seconds) > _LONGEST_SECONDS:
        raise bad("bad_number", f"{name} is {str(value)[:40]!r}, not a number of seconds.")
    if seconds < 0:
        raise bad(f"negative_{name}", f"{name} is {seconds:g}, below zero.")
    return seconds + 0.0


def _canonical(fields: dict[str, Any]) -> str:
    """Canonical JSON of the other fields; what JSON cannot hold (NaN, dates, bytes) becomes what can."""
    try:
        text = _STRICT_JSON.encode(fields)
    except (TypeError, ValueError):
        text = ids.canonical_json(_plain(fields))
    if len(text) > MAX_METADATA_CHARS:
        raise bad("too_large", f"The other columns hold {len(text)} characters.")
    return _utf8(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (datetime.timedelta, decimal.Decimal)):
        return str(value)
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def _utf8(text: str) -> str:
    """`text` with what UTF-8 cannot hold (half a surrogate pair) replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _fits_utf8(text: str) -> bool:
    return text.isascii() or _utf8(text) == text
