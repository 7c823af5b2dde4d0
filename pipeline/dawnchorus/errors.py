"""The whole error tree.

    DawnChorusError
    ├── UserError            the user can fix it: one sentence, and the fix
    │   ├── ConfigError          a key, a value, an override
    │   ├── ManifestError        a manifest that cannot be read, or is mostly bad
    │   ├── FingerprintMismatch  the output was made with other settings
    │   ├── OutputOwned          another run is writing this output
    │   ├── EngineUnavailable    an engine, its package or its weights are missing
    │   └── StorageUnavailable   a bucket or folder that cannot be read or written at all
    ├── DataError            one recording's fault; becomes a Failure row
    │   ├── Transient            worth another try: I/O, credentials, throttling, memory, time
    │   └── Terminal             will be the same tomorrow
    ├── Fenced               a newer run took the output over; stop writing
    ├── RunPaused            too many alike transient failures in a row; nothing was lost
    └── ReconcileError       the tables do not add up

Every class survives pickling, because these cross process borders.
"""

from __future__ import annotations

from dawnchorus.records import Failure, Stage


class DawnChorusError(Exception):
    """Base of every error raised on purpose."""


class UserError(DawnChorusError):
    """Something a person can put right. `fix` says how, in one sentence."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class ConfigError(UserError):
    """A key, a value or an override of the run's configuration."""


class ManifestError(UserError):
    """A manifest that cannot be read, or is mostly bad."""


class FingerprintMismatch(UserError):
    """The output holds transcripts made with other settings."""


class OutputOwned(UserError):
    """Another living run owns the output."""


class EngineUnavailable(UserError):
    """An engine, its package or its weights are not here."""


class StorageUnavailable(UserError):
    """A place that cannot be read or written at all."""


class DataError(DawnChorusError):
    """One recording's fault. `kind` groups, `message` explains, `stage` says where."""

    transient: bool = False

    def __init__(self, kind: str, message: str, stage: Stage = "decode") -> None:
        super().__init__(kind, message, stage)
        self.kind = kind
        self.message = message
        self.stage: Stage = stage

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def failure(self, attempts: int = 1) -> Failure:
        """The row form of this error."""
        return Failure(self.stage, self.kind, self.message, self.transient, attempts)


class Transient(DataError):
    """Worth another try on the next resume."""

    transient = True


class Terminal(DataError):
    """Will be the same tomorrow."""


class Fenced(DawnChorusError):
    """A newer owner took the output; this process must not write any more."""


class RunPaused(DawnChorusError):
    """Many alike transient failures in a row: stop before they become rows."""


class ReconcileError(DawnChorusError):
    """The run's manifest and the committed tables disagree."""
