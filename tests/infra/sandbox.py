"""A process, network and user namespace of its own for one command.

What is started or signalled in it meets nothing else on this machine; all of it ends with the command.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

_ENTER = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def enclosed(*command: str) -> list[str]:
    """The command line that runs `command` in there; skips the test where there are no namespaces."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    if subprocess.run([*_ENTER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    return [*_ENTER, sys.executable, "-c", _LOOPBACK_UP, *command]
