"""What Ray raised, in words of ours."""

from __future__ import annotations

import ray

from dawnchorus.errors import DawnChorusError


def our_error(error: BaseException) -> DawnChorusError | None:
    """Our own error inside what Ray raised, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DawnChorusError) and not isinstance(seen, ray.exceptions.RayTaskError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line, or its name where it says nothing. Of an error that Ray passed
    on, what was raised there: Ray's own text begins with where that was.
    """
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
