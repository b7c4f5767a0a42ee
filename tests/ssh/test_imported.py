"""asyncssh is imported without a compiler, and with the libraries that are there."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

from shipway.host.ssh.imported import find_shared_library


def test_the_import_runs_no_program(tmp_path: Path) -> None:
    """A compiler and a linker on the search path are not run; only ctypes' own way would run them."""
    ran = tmp_path / "ran"
    for name in ("gcc", "cc", "ld", "ldconfig"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    usual = "import ctypes.util; ctypes.util.find_library('shipway-has-no-such-library')"
    subprocess.run([sys.executable, "-c", usual], env=environment, check=True)
    assert "gcc" in ran.read_text(encoding="utf-8"), "ctypes no longer runs a compiler: this module is needless"
    ran.unlink()
    subprocess.run([sys.executable, "-c", "import shipway.host.ssh"], env=environment, check=True)
    assert not ran.exists(), ran.read_text(encoding="utf-8")


def test_ctypes_is_left_as_it_was() -> None:
    """What others look for later is looked for by ctypes' own function."""
    assert ctypes.util.find_library.__module__ == "ctypes.util"


def test_a_library_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    """By the name that the dynamic linker takes; one of another name, or for linking alone, is not it."""
    empty, full, later = (tmp_path / name for name in ("empty", "full", "later"))
    for folder in (empty, full, later):
        folder.mkdir()
    for name in ("libnettle.so", "libnettle.a", "libnettle.so.8.6", "libnettle.so.8", "libnettles.so.1"):
        (full / name).touch()
    (later / "libnettle.so.9").touch()
    folders = tuple(map(str, (tmp_path / "missing", empty, full, later)))
    assert find_shared_library("nettle", folders) == "libnettle.so.8"
    assert find_shared_library("oqs", folders) is None
