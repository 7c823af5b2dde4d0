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
    """An error's first line, or its name where it says nothing."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
