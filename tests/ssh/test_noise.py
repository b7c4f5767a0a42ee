"""What a login shell, PAM or sudo prints is in no fact and no file, whichever shell it is; the script is in no list."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.ssh import Pool
from shipway.script import READER, compose, frame, split, strip_noise
from tests.places.real_sshd import needs_sshd, real_sshd

NOISE = "Welcome to node7 - authorised use only\n$b --shipway-000000000000000000000000 0\nno end of a line \"'"
SHELLS = ("bash", "dash", "rbash", "zsh", "fish", "tcsh", "ksh", "busybox sh")
INNER = ("dash", "bash", "busybox sh", "zsh")


def there(shell: str) -> bool:
    """Tell whether this machine has a shell."""
    return shutil.which(shell.split(maxsplit=1)[0]) is not None


def shells(names: Sequence[str]) -> list[Any]:
    """Return a case per shell; one that is not installed here is reported as not run."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not there(name), reason=f"{name} is not installed here."))
        for name in names
    ]


@needs_sshd
@pytest.mark.parametrize("shell", shells(SHELLS))
async def test_a_noisy_login_shell_of_any_kind_changes_no_answer(tmp_path: Path, pool: Pool, shell: str) -> None:
    """The forced command stands for the account: sshd hands it to a shell as it hands over what is asked."""
    noise = tmp_path / "noise"
    noise.write_text(NOISE)
    login = tmp_path / "login"
    login.write_text(
        f'#!/bin/bash\ncat {noise}; cat {noise} >&2\n{shell} -c "$SSH_ORIGINAL_COMMAND"\ns=$?\n'
        f"cat {noise}; cat {noise} >&2; exit $s\n"
    )
    login.chmod(0o755)
    async with real_sshd(tmp_path, f"ForceCommand {login}") as sshd:
        host = pool.host(sshd.target)
        content = bytes(range(256)) * 700 + b"\nwhole\n"
        path = tmp_path / "a folder" / "file"
        owner = f"{getpass.getuser()}:{os.getegid()}"
        said, bad, none = await host.read(
            Says(("echo", "one")), Says(("sh", "-c", "echo out; echo err >&2; exit 3")), FileText("/none")
        )
        assert (said.stdout, said.stderr) == ("one\n", "")
        assert (bad.status, bad.stdout, bad.stderr, none) == (3, "out\n", "err\n", None)
        await host.write(str(path), content, owner=owner)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()


@needs_sshd
@pytest.mark.skipif(not there("bash"), reason="bash is not installed here.")
async def test_a_bashrc_that_prints_before_its_guard_is_in_no_fact(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / ".bashrc").write_text(
        'echo "Welcome to node7 - authorised use only"\nset -x\ncase $- in *i*) ;; *) return;; esac\n'
    )
    login = tmp_path / "login"
    login.write_text(
        f'#!/bin/sh\nunset SHLVL\nHOME={tmp_path} BASH_ENV={tmp_path}/.bashrc exec bash -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    login.chmod(0o755)
    async with real_sshd(tmp_path, f"ForceCommand {login}") as sshd:
        said = await pool.host(sshd.target).read(Says(("echo", "fact")))
        assert (said.stdout, said.stderr) == ("fact\n", "")


@pytest.mark.parametrize("shell", shells(INNER))
async def test_every_sh_takes_the_script_alone_and_leaves_the_rest_of_the_input(shell: str) -> None:
    text, boundary = compose(
        [
            ("dd", "bs=5", "count=1", "iflag=fullblock", "status=none"),
            ("was_whole",),
            ("sh", "-c", "cat; exit 4"),
        ],
        verb="d",
    )
    token, feed = frame(text, b"hello" + b"whole\n" + b"the rest")
    command = f"{shell} -c " + READER.removeprefix("sh -c ")
    ran = await asyncio.create_subprocess_exec("sh", "-c", command, stdin=-1, stdout=-1, stderr=-1)
    out, err = await ran.communicate(b"a password that sudo did not ask for\n" + feed)
    outputs = split(boundary, strip_noise(token, out.decode()) or "", strip_noise(token, err.decode()) or "")
    assert [(one.status, one.stdout, one.stderr) for one in outputs] == [
        (0, "hello", ""),
        (0, "", ""),
        (4, "the rest", ""),
    ]


@pytest.mark.parametrize("shell", shells(INNER))
def test_a_script_that_was_cut_short_does_nothing_at_any_length(tmp_path: Path, shell: str) -> None:
    mark = tmp_path / "mark"
    text, _ = compose([("touch", str(mark)), ("touch", f"{mark}2")], verb="d")
    token, feed = frame(text)
    command = f"{shell} -c " + READER.removeprefix("sh -c ")
    for length in [*range(len(token), len(feed) - 1, 41), len(feed) - 2, len(feed) - 3, len(feed) - 4]:
        subprocess.run(["sh", "-c", command], input=feed[:length], capture_output=True, check=False)
        assert not list(tmp_path.iterdir()), length
    subprocess.run(["sh", "-c", command], input=feed, capture_output=True, check=True)
    assert len(list(tmp_path.iterdir())) == 2


@needs_sshd
async def test_a_script_is_in_no_list_of_processes_and_as_long_as_it_needs_to_be(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path) as sshd:
        host = pool.host(sshd.target)
        word = "not-for-ps-4711"
        listing = "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p; echo; done"
        many = [Says(("printf", "%s", f"{word}{'x' * 1000}{number}")) for number in range(300)]
        *answers, processes = await host.read_all([*many, Says(("sh", "-c", listing))])
        assert all(answer.ok for answer in answers)
        assert host.round_trips == 1
        assert "while read -r k n" in processes.stdout
        assert word not in processes.stdout
