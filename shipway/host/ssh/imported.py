"""asyncssh, imported without a compiler.

At its import asyncssh looks for two optional libraries (nettle for UMAC, liboqs) by `ctypes.util.find_library`, which
runs gcc and ld for each name that the linker's cache lacks: 0.06 s of CPU at every start of a command, on a machine
that has them. While it is imported here the libraries are looked for in the folders of the dynamic linker instead.
"""

from __future__ import annotations

import ctypes.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where ld.so(8) looks without configuration, with Debian's folder of the architecture (multiarch).
_MULTIARCH = sysconfig.get_config_var("MULTIARCH") or ""
FOLDERS = (f"/usr/lib/{_MULTIARCH}", f"/lib/{_MULTIARCH}", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib")


def find_shared_library(name: str, folders: tuple[str, ...] = FOLDERS) -> str | None:
    """Return the file name of a shared library (`libnettle.so.8` for `nettle`) in the first folder that has one."""
    for folder in folders:
        if found := sorted(Path(folder).glob(f"lib{name}.so.*"), key=lambda path: (len(path.name), path.name)):
            return found[0].name
    return None


@contextmanager
def _without_compiler() -> Iterator[None]:
    usual = vars(ctypes.util)["find_library"]
    if sys.platform == "linux":
        vars(ctypes.util)["find_library"] = find_shared_library
    try:
        yield
    finally:
        vars(ctypes.util)["find_library"] = usual


with _without_compiler():
    import asyncssh  # noqa: F401 - for its effect: every later import finds it
