"""Files that hold secrets are their owner's alone from before their first byte, even where the umask is 0."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shipway.cluster_file import parse_cluster
from shipway.host.command import Command, File, place_files
from shipway.host.session import Host
from shipway.kube import access as kube_access
from shipway.kube.access import as_file, own_folder, save_kubeconfig, save_secret
from shipway.script import compose, split
from shipway.steps.kubernetes import user_kubeconfig
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from tasks.stages.dashboard import TokenFile, token_path

SECRET = b"token: abcdef.0123456789abcdef\n" * 4000
OTHERS = 0o077


@pytest.fixture
def careless() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


@contextmanager
def watched(folder: Path) -> Iterator[set[tuple[str, int, bool]]]:
    """Look at a folder's files without pause; gives (name, mode, whether something is in it) of all that was seen."""
    seen: set[tuple[str, int, bool]] = set()
    ended = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = ended.is_set()
            for name in os.listdir(folder):  # noqa: PTH208 - quick
                with contextlib.suppress(FileNotFoundError):
                    state = os.stat(f"{folder}/{name}")  # noqa: PTH116 - quick
                    seen.add((name, state.st_mode & 0o777, state.st_size > 0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def put(path: Path, content: bytes, mode: str) -> list[Command]:
    """Return the commands that put one file in its place."""
    return [command for command, _ in place_files([File(str(path), content, mode)])]


def run_in_a_real_shell(commands: Sequence[Command], *, lost: int = 0) -> None:
    """Run commands as a host does, its umask 0; their input comes in two halves with a pause between.

    `lost` is how many bytes at the input's end do not come, as where a link breaks: then the last command must fail.
    """
    text, boundary = compose([command.bounded() for command in commands], verb="d")
    feed = b"".join(command.feed for command in commands)
    feed = feed[: len(feed) - lost]
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", text], stdin=pipe, stdout=pipe, stderr=pipe, umask=0) as shell:
        assert shell.stdin
        assert shell.stdout
        shell.stdin.write(feed[: len(feed) // 2])
        shell.stdin.flush()
        time.sleep(0.4)
        shell.stdin.write(feed[len(feed) // 2 :])
        shell.stdin.close()
        out = shell.stdout.read().decode()
    outputs = split(boundary, out, "")
    if lost:
        assert outputs[-1].status == 1, outputs
    else:
        assert [one.status for one in outputs] == [0] * len(commands), outputs


def test_a_hosts_file_is_private_from_before_its_first_byte(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "shipway"
    folder.mkdir(parents=True)
    path = folder / "kubeadm-join.yaml"
    with watched(folder) as seen:
        run_in_a_real_shell(put(path, SECRET, "600"))
    assert path.read_bytes() == SECRET
    assert {mode for _, mode, _ in seen} == {0o600}
    assert {(f"{path.name}.shipway-new", 0o600, False), (path.name, 0o600, True)} <= seen


def test_who_opened_what_an_interrupted_run_left_reads_nothing_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    left = tmp_path / "secret.shipway-new"
    left.touch()
    left.chmod(0o666)
    with left.open("rb") as opened:
        run_in_a_real_shell(put(path, SECRET, "600"))
        assert opened.read() == b""
    assert path.read_bytes() == SECRET


@pytest.mark.parametrize("lost", [1, 3, 6, 20])
def test_a_file_of_which_not_all_came_is_not_put_in_its_place(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"as it was\n")
    run_in_a_real_shell(put(path, b"all that is wanted\n", "644"), lost=lost)
    assert path.read_bytes() == b"as it was\n"


def test_new_folders_of_a_hosts_file_can_be_entered_and_an_empty_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "apt" / "keyrings" / "site.asc"
    run_in_a_real_shell(put(path, b"", "644"))
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.parent.parent.stat().st_mode & 0o777 == 0o755


async def test_the_users_kubeconfig_is_private_from_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = tmp_path / "admin.conf"
    admin.write_bytes(SECRET * 100)
    admin.chmod(0o644)  # kubeadm makes it 600; this is the worst there may be
    home = tmp_path / "home"

    async def place(*_: Any) -> tuple[str, str, str]:
        return f"{home}/.kube/config", getpass.getuser(), str(os.getgid())

    monkeypatch.setattr(user_kubeconfig, "ADMIN", str(admin))
    monkeypatch.setattr(UserHasKubeconfig, "_place", place)

    class Kept(Host):
        kept: tuple[Command, ...] = ()

        async def do(self, *commands: Command) -> Any:
            self.kept = commands

        async def read(self, *_: Any) -> Any:  # there is no file yet
            return None

    host = Kept("here", None)  # type: ignore[arg-type] - nothing is sent
    await UserHasKubeconfig(getpass.getuser()).apply(host)
    (tmp_path / "home").mkdir()
    run_in_a_real_shell(host.kept[:1])
    with watched(tmp_path / "home" / ".kube") as seen:
        run_in_a_real_shell(host.kept[1:])
        run_in_a_real_shell(host.kept[1:])  # over one that is there
    assert (tmp_path / "home" / ".kube").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / ".kube" / "config").read_bytes() == SECRET * 100
    assert {mode for _, mode, _ in seen} == {0o600}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Inode, mode and size of each file at the moment that something may be written into it."""
    seen: list[tuple[int, int, int]] = []
    plain = os.fdopen

    def fdopen(descriptor: int, *words: Any, **more: Any) -> Any:
        state = os.fstat(descriptor)
        seen.append((state.st_ino, state.st_mode & 0o777, state.st_size))
        return plain(descriptor, *words, **more)

    monkeypatch.setattr(kube_access.os, "fdopen", fdopen)
    return seen


@pytest.mark.usefixtures("careless")
async def test_the_controllers_secrets_are_private_from_before_their_first_byte(
    tmp_path: Path, opened: list[tuple[int, int, int]]
) -> None:
    class Api:
        async def create_token(self, *_: Any) -> str:
            return "eyJ0.eyJ1.c2ln"

    cluster = parse_cluster(f"name: te\nhosts: [10.0.0.1]\nstate_dir: {tmp_path}/not/there")
    await TokenFile(token_path(cluster)).apply(Api())  # type: ignore[arg-type]
    save_kubeconfig(token_path(cluster).with_name("kubeconfig"), SECRET.decode())
    made = [token_path(cluster), token_path(cluster).with_name("kubeconfig")]
    assert [(path.stat().st_ino, 0o600, 0) for path in made] == opened
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    assert sorted(path.name for path in made[0].parent.iterdir()) == ["dashboard-token", "kubeconfig"]
    for folder in (made[0].parent, made[0].parent.parent, made[0].parent.parent.parent):
        assert folder.stat().st_mode & OTHERS == 0, folder


@pytest.mark.usefixtures("careless")
def test_a_secret_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_secret(tmp_path / "one", "before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kube_access.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_secret(tmp_path / "one", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one").read_text() == "before"


@pytest.mark.usefixtures("careless")
def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    own_folder(tmp_path / "a" / "b")
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}


@pytest.mark.usefixtures("careless")
def test_what_a_library_reads_from_a_file_is_in_memory_or_private() -> None:
    with as_file("secret") as path:
        assert Path(path).resolve().parts[1:2] != ("tmp",) or Path(path).stat().st_mode & OTHERS == 0
        assert Path(path).read_text(encoding="ascii") == "secret"
    assert not Path(path).exists() or path.startswith("/proc/self/fd/")
