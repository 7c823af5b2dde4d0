"""Every kind of failure that there is by itself; engines may have kinds of their own. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dawnchorus.errors import ConfigError

_MANIFEST = (
    "bad_number bad_path conflicting_duplicate invalid_csv invalid_json line_too_long missing_path "
    "negative_duration negative_offset not_utf8 too_large unsupported_cut wrong_columns"
)
_FETCH = (
    "changed credentials disk_full io is_directory network no_length not_a_file not_found permission refused "
    "short_read throttled too_slow"
)
_DECODE = (
    "bad_channel crash damaged_audio decoder_unavailable empty_file killed memory no_audio_track no_samples "
    "non_finite not_audio outside_audio timeout too_long"
)
_ENGINE = "bad_shape empty_answer empty_prompt not_finite on_demand out_of_memory unfinished_thought"
KINDS = frozenset(f"{_MANIFEST} {_FETCH} {_DECODE} {_ENGINE}".split())


def refuse_unknown(asked: Iterable[str] | None, there: Collection[str]) -> None:
    """Make sure that the kinds somebody wants to try again exist: here, or anywhere.

    Raises:
        ConfigError: one does not; lists those that are `there`.
    """
    strange = [k for k in asked or () if k not in KINDS and k not in there]
    if strange:
        here = f"This output has: {', '.join(sorted(there))}." if there else "This output has no failures."
        raise ConfigError(
            f"There is no kind of failure {strange[0]!r}.", f"{here} Or say: --retry-failed all."
        )
