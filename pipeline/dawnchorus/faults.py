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


def with_origin(known: DawnChorusError, raised: BaseException) -> DawnChorusError:
    """`known`, which was found in `raised`, with all that Ray said as a note, for --debug. Raise it after the
    except clause: until then `raised` holds its traceback, and that the graph's actors and their slots."""
    if known is not raised:
        known.add_note(str(raised))
    return known


def first_line(error: BaseException) -> str:
    """What an error says, in one line, or its name where it says nothing. Of an error that Ray passed
    on, what was raised there, ours first: Ray's own text begins with where that was.
    """
    error = our_error(error) or error
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
