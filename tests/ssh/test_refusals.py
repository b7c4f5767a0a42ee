"""Three kinds of refusal: what cannot be read here, what the host's account refuses, what the network does."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipway.errors import (
    ConnectionLost,
    HostKeyMismatch,
    HostKeyUnknown,
    LoginRefused,
    Refused,
    ShipwayError,
    Transient,
    Unreachable,
)
from shipway.facts.commands import Says
from shipway.host.ssh import Pool, keys
from shipway.host.ssh.channels import Answer
from shipway.host.ssh.connection import Connection
from shipway.host.ssh.known_hosts import known_hosts
from shipway.host.target import Target
from tests.places.real_sshd import free_port, needs_sshd, real_sshd
from tests.places.shell_server import Server

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
WORDS = "open sesame"
ODD_LINES = f"=\n<<<<<<< HEAD\n=======\n>>>>>>> x\n|1|notbase64 {KEY}\n|2|YQ==|YQ== {KEY}\n@who * {KEY}\n* ssh-rsa !!\n"


async def failed(pool: Pool, target: Target) -> ShipwayError:
    """Return the error that a look at this target ends with."""
    with pytest.raises(ShipwayError) as raised:
        await pool.host(target).read(Says(("true",)))
    return raised.value


async def _never(_: Target) -> tuple[asyncssh.SSHClientConnection, object]:
    raise AssertionError


def heard(status: int | None, out: str, err: str, *, signal: str = "", user: str = "ops") -> ShipwayError:
    """Return what a script that never began is taken for."""

    async def asked() -> ShipwayError:
        answer = Answer(b"", end=True)
        answer.status, answer.signal = status, signal
        answer.out.extend(out.encode())
        answer.err.extend(err.encode())
        return Connection(Target("te1", "10.0.0.1", user=user), _never)._unable(answer)  # type: ignore[arg-type]

    return asyncio.run(asked())


SUDO = [
    "sudo: a password is required",
    "sudo: a terminal is required to read the password; either use the -S option to read from standard input",
    "sudo: sorry, you must have a tty to run sudo",
    "ops is not in the sudoers file.",
    "ops is not in the sudoers file.  This incident will be reported.",
    "Sorry, user ops is not allowed to execute '/usr/bin/sh -c x' as root on te1.",
    "Sorry, user ops may not run sudo on te1.",
    "sudo: unable to resolve host te1: Name or service not known\nsudo: a password is required",
    "sh: 1: sudo: not found",
    "bash: line 1: sudo: command not found",
    "zsh:1: command not found: sudo",
    "fish: Unknown command: sudo",
    "sudo: Command not found.",
]


@pytest.mark.parametrize("said", SUDO)
def test_what_sudo_says_is_a_refusal_of_sudo(said: str) -> None:
    error = heard(1, "Welcome, enjoy the pretty tty\n", f"{said}\n")
    assert isinstance(error, LoginRefused)
    assert (error.code, error.may_retry) == ("SHW-305", False)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (1, "This account is currently not available."),
        (1, ""),
        (1, "WARNING: Your password has expired.\nPassword change required but no TTY available."),
        (127, "sh: not found: a pretty message, and sudoku"),
        (97, ""),
        (2, "sh: 1: Syntax error: the doors of this pretty host are closed"),
        (255, "/usr/bin/restricted: only rsync is allowed"),
    ],
)
def test_what_the_account_says_is_a_refusal_of_the_account(status: int, said: str) -> None:
    for out, err in (("", said), (said, "")):
        error = heard(status, out, err)
        assert isinstance(error, LoginRefused)
        assert (error.code, error.may_retry) == ("SHW-347", False)
        assert said.splitlines()[-1:] == [] or said.splitlines()[-1] in error.message
        assert f"exit status {status}" in error.message


@pytest.mark.parametrize(
    "said", ["bash: fork: retry: Resource temporarily unavailable", "sh: 1: Cannot allocate memory"]
)
def test_what_a_host_is_short_of_may_pass(said: str) -> None:
    error = heard(254, "", said)
    assert isinstance(error, Transient)
    assert not isinstance(error, ConnectionLost)
    assert (error.code, error.may_retry) == ("SHW-213", True)


@needs_sshd
async def test_an_account_without_a_shell_is_said_with_its_own_words_and_not_tried_again(
    tmp_path: Path, pool: Pool
) -> None:
    said = "This account is currently not available."
    async with real_sshd(tmp_path, f'ForceCommand echo "{said}"; exit 1') as sshd:
        error = await failed(pool, sshd.target)
        assert isinstance(error, LoginRefused)
        assert said in error.message
        assert (error.code, error.may_retry) == ("SHW-347", False)


async def test_a_known_hosts_file_with_lines_that_are_none_is_read_as_openssh_reads_it(
    server: Server, pool: Pool
) -> None:
    path = server.folder / "known_hosts"
    path.write_text(ODD_LINES + path.read_text() + "\n" + ODD_LINES)
    assert (await pool.host(server.target).read(Says(("true",)))).ok
    path.write_text(ODD_LINES)
    assert isinstance(await failed(pool, replace(server.target, name="other")), HostKeyUnknown)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(max_size=60) | st.sampled_from([*ODD_LINES.splitlines(), f"@cert-authority x {KEY}"]), max_size=8)
)
def test_no_line_of_a_known_hosts_file_keeps_the_others_from_being_read(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join([*lines, f"\n[127.0.0.1]:2222 {KEY}\n", *lines]), encoding="utf-8", errors="replace")
    known_hosts.__globals__["_parse"].cache_clear()
    assert known_hosts([str(path)]).match("127.0.0.1", "127.0.0.1", 2222)[0]


@needs_sshd
async def test_hashed_names_and_authorities_are_known_hosts_too(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path) as sshd:
        path = sshd.folder / "known_hosts"
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)  # noqa: ASYNC221
        assert path.read_text().startswith("|1|")
        assert (await pool.host(sshd.target).read(Says(("true",)))).ok


@needs_sshd
async def test_a_host_with_a_certificate_is_known_by_its_authority(tmp_path: Path, pool: Pool) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "certified").write_bytes(key.export_private_key("openssh"))
    (tmp_path / "certified").chmod(0o600)
    made = authority.generate_host_certificate(key, "te1", principals=["127.0.0.1"])
    (tmp_path / "certified-cert.pub").write_bytes(made.export_certificate())
    more = (f"HostKey {tmp_path}/certified", f"HostCertificate {tmp_path}/certified-cert.pub")
    async with real_sshd(tmp_path, *more) as sshd:
        path = sshd.folder / "known_hosts"
        path.write_text(f"@cert-authority [127.0.0.1]:{sshd.target.port} {authority.export_public_key().decode()}")
        assert (await pool.host(sshd.target).read(Says(("true",)))).ok


async def test_a_new_host_keeps_its_key_on_a_line_of_its_own(server: Server, pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "no_end"
    path.write_text(f"other {KEY}")
    assert (await pool.host(replace(server.target, known_hosts=str(path), accept_new=True)).read(Says(("true",)))).ok
    assert [line.split()[0] for line in path.read_text().splitlines()] == ["other", f"[127.0.0.1]:{server.target.port}"]


async def test_a_host_that_offers_no_kind_of_key_that_is_known_is_an_alarm(server: Server, pool: Pool) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.target.port} {other}")
    for accept_new in (False, True):
        error = await failed(pool, replace(server.target, accept_new=accept_new))
        assert isinstance(error, HostKeyMismatch)
        assert not error.may_retry


async def test_local_files_that_cannot_be_read_are_named_and_nothing_is_tried_again(
    server: Server, pool: Pool, tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no key at all\n")
    config = tmp_path / "config"
    config.write_text("Host *\n  Port twentytwo\n")
    for changed, named in (
        ({"key": str(rubbish)}, str(rubbish)),
        ({"key": str(tmp_path)}, str(tmp_path)),
        ({"key": str(tmp_path / "none")}, "none"),
        ({"known_hosts": str(tmp_path)}, str(tmp_path)),
        ({"config": str(config), "open": ("port",)}, f"{config} line 2"),
    ):
        error = await failed(pool, replace(server.target, **changed))  # type: ignore[arg-type]
        assert isinstance(error, Refused), error
        assert named in error.message
        assert (error.code, error.may_retry) == ("SHW-348", False)


async def test_the_network_is_the_one_that_may_pass(server: Server, pool: Pool) -> None:
    error = await failed(pool, replace(server.target, port=free_port()))
    assert isinstance(error, Unreachable)
    assert error.may_retry
    error = await failed(pool, replace(server.target, address="no-such-host.invalid"))
    assert isinstance(error, Unreachable)
    assert "the name cannot be resolved" in error.message
    assert error.may_retry


async def test_an_sshd_that_drops_some_before_its_version_is_tried_again_within_the_limit(
    server: Server, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipway.host.ssh.handshake.FIRST_PAUSE", 0.05)
    dropped = 0

    async def crowded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dropped
        if dropped < 2:
            dropped += 1
            writer.write(b"Exceeded MaxStartups\r\n" if dropped == 1 else b"")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.target.port)

        async def pumped(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pumped(reader, far_writer), pumped(far_reader, writer))

    front = await asyncio.start_server(crowded, "127.0.0.1", 0)
    port = front.sockets[0].getsockname()[1]
    known = server.folder / "known_hosts"
    known.write_text(known.read_text().replace(str(server.target.port), str(port)))
    async with front:
        assert (await pool.host(replace(server.target, port=port)).read(Says(("echo", "in")))).stdout == "in\n"
        await pool.close()
    assert dropped == 2


def locked(folder: Path, form: str = "pkcs8-pem") -> Path:
    """Write a key with a passphrase; return its path."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = folder / "locked"
    path.write_bytes(key.export_private_key(form, passphrase=WORDS))
    path.chmod(0o600)
    (folder / "locked.pub").write_bytes(key.export_public_key())
    return path


@needs_sshd
@pytest.mark.parametrize("form", ["pkcs8-pem", "openssh"])
async def test_a_key_with_a_passphrase_is_asked_for_once_or_said_clearly(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(keys, "_ASKED", {})
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    async with real_sshd(tmp_path) as sshd:
        path = locked(tmp_path, form)
        (tmp_path / "authorized_keys").write_bytes((tmp_path / "locked.pub").read_bytes())
        target = replace(sshd.target, key=str(path))
        error = await failed(pool, target)
        assert isinstance(error, Refused)
        assert (error.code, error.may_retry) == ("SHW-350", False)
        assert f"ssh-add {path}" in error.fix

        def ask(prompt: str) -> str:
            asked.append(prompt)
            return WORDS if len(asked) > 1 else "wrong"

        monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)}))
        monkeypatch.setattr("getpass.getpass", ask)
        hosts = [pool.host(replace(target, name=f"te{number}")) for number in range(4)]
        assert all(said.ok for said in await asyncio.gather(*(host.read(Says(("true",))) for host in hosts)))
        assert len(asked) == 2  # once wrong, once right, for all four
        assert str(path) in asked[0]


@needs_sshd
async def test_a_key_that_an_agent_holds_needs_no_passphrase_and_no_other_key_is_offered(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        while not (tmp_path / "agent").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        path = locked(tmp_path)
        others = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(8)]  # more than MaxAuthTries
        async with asyncssh.connect_agent(str(tmp_path / "agent")) as held:
            for other in others:
                await held.add_keys([other])
            await held.add_keys([asyncssh.read_private_key(path, WORDS)])
        async with real_sshd(tmp_path) as sshd:
            (tmp_path / "authorized_keys").write_bytes((tmp_path / "locked.pub").read_bytes())
            assert (await pool.host(replace(sshd.target, key=str(path))).read(Says(("true",)))).ok
            error = await failed(pool, replace(sshd.target, name="all", key=""))
            assert isinstance(error, LoginRefused)
            assert "MaxAuthTries" in error.message
            assert not error.may_retry
    finally:
        agent.terminate()
        agent.wait()


SUDO_DOUBLE = """#!/bin/sh
# Stands for sudo: what it is given, what it reads (a line, byte by byte), what it says and how it ends.
printf '%s\\n' "$*" >> @FOLDER@/asked
case "$*" in
  "-n -- "*) echo "sudo: a password is required" >&2; exit 1 ;;
  "-S -k -p  -- "*) shift 5 ;;
  *) echo "sudo: usage" >&2; exit 1 ;;
esac
echo "We trust you have received the usual lecture." >&2
for try in 1 2 3; do
  IFS= read -r line || { echo "sudo: no password was provided" >&2; exit 1; }
  printf '%s\\n' "$line" >> @FOLDER@/passwords
  [ "$line" != "correct horse" ] || exec "$@"
  echo "Sorry, try again." >&2
done
echo "sudo: 3 incorrect password attempts" >&2; exit 1
"""


@needs_sshd
async def test_sudos_password_comes_from_its_file_on_standard_input_and_a_wrong_one_is_tried_once(
    tmp_path: Path, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sudo").write_text(SUDO_DOUBLE.replace("@FOLDER@", str(tmp_path)))
    (programs / "sudo").chmod(0o755)
    password = tmp_path / "password"
    login = f'ForceCommand PATH={programs}:$PATH; eval "$SSH_ORIGINAL_COMMAND"'
    async with real_sshd(tmp_path, login) as sshd:
        target = replace(sshd.target, sudo_password_file=str(password))
        for content, mode, named in ((None, 0, "cannot be read"), ("x", 0o644, "chmod 600"), ("", 0o600, "one line")):
            if content is not None:
                password.write_text(content)
                password.chmod(mode)
            error = await failed(pool, await _as_user(pool, replace(target, name=named)))
            assert isinstance(error, Refused)
            assert named in f"{error.message} {error.fix}"
        password.write_text("wrong staple\n")
        password.chmod(0o600)
        wrong = await _as_user(pool, replace(target, name="wrong"))
        for _ in range(3):
            error = await failed(pool, wrong)
            assert isinstance(error, LoginRefused)
            assert (error.code, error.may_retry) == ("SHW-349", False)
            assert "staple" not in f"{error.message} {error.fix}"
        assert (tmp_path / "passwords").read_text().splitlines() == ["wrong staple"]
        password.write_text("correct horse")
        host = pool.host(await _as_user(pool, replace(target, name="right")))
        said = await asyncio.gather(*(host.read(Says(("sh", "-c", f"echo {one}; cat"))) for one in range(3)))
        assert [one.stdout for one in said] == ["0\n", "1\n", "2\n"]
        owner = f"{os.geteuid()}:{os.getegid()}"
        await host.write(str(tmp_path / "file"), b"of\nlines\n", owner=owner)
        assert (tmp_path / "file").read_bytes() == b"of\nlines\n"
        asked = (tmp_path / "asked").read_text()
        assert "correct" not in asked
        assert "correct horse" not in caplog.text
        assert stat.S_IMODE(password.stat().st_mode) == 0o600


async def _as_user(pool: Pool, target: Target) -> Target:
    """Have a target's connection go through sudo whoever logs in: this test runs as root in some places."""
    connection = pool.host(target).shell
    assert isinstance(connection, Connection)
    plain = connection._connect

    async def named(one: Target) -> tuple[asyncssh.SSHClientConnection, object]:
        made, way = await plain(one)
        return made, replace(way, target=replace(way.target, user="ops"))

    connection._connect = named  # type: ignore[assignment]
    return target


@needs_sshd
async def test_a_secret_block_is_asked_for_by_name_and_never_held_in_the_target(tmp_path: Path) -> None:
    block = "sudo-of-gpus"

    async def secret(name: str) -> str:
        assert name == block
        return "correct horse"

    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sudo").write_text(SUDO_DOUBLE.replace("@FOLDER@", str(tmp_path)))
    (programs / "sudo").chmod(0o755)
    async with real_sshd(tmp_path, f'ForceCommand PATH={programs}:$PATH; eval "$SSH_ORIGINAL_COMMAND"') as sshd:
        target = replace(sshd.target, sudo_password_secret=block)
        pool, bare = Pool(secret), Pool()
        assert (await pool.host(await _as_user(pool, target)).read(Says(("echo", "in")))).stdout == "in\n"
        assert "horse" not in repr(target)
        assert isinstance(await failed(bare, await _as_user(bare, target)), Refused)
        await pool.close()
        await bare.close()
