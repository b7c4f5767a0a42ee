"""A host session over real SSH and a real shell: facts in one round trip, and every failure as the right error."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from shipway.errors import (
    CommandFailed,
    ConnectionLost,
    DeadlineExceeded,
    HostKeyMismatch,
    HostKeyUnknown,
    LoginRefused,
    Refused,
    Unreachable,
)
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.host.session import Command, Host
from shipway.host.ssh import Pool
from tests.places.shell_server import Server


@pytest.fixture
def host(server: Server, pool: Pool) -> Host:
    return pool.host(server.target)


async def test_all_facts_asked_in_one_turn_cost_one_round_trip(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "a file; $(touch hurt) 'quoted'"
    file.write_text("no newline at the end")

    async def one() -> object:
        return await host.read(FileState(str(file)), FileText(str(file)))

    async def other() -> object:
        return await asyncio.gather(host.read(Listing(str(tmp_path))), host.read(FileText(str(tmp_path / "none"))))

    (state, text), (names, missing) = await asyncio.gather(one(), other())  # type: ignore[misc]
    assert state.sha256 == hashlib.sha256(b"no newline at the end").hexdigest()
    assert text == "no newline at the end"
    assert file.name in names
    assert "hurt" not in names
    assert missing is None
    assert host.round_trips == 1


async def test_a_known_fact_is_not_asked_again_until_forgotten(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    assert await host.read(FileText(str(file))) == "one"
    file.write_text("two")
    assert await host.read(FileText(str(file))) == "one"
    host.forget()
    assert await host.read(FileText(str(file))) == "two"
    assert host.round_trips == 2


async def test_who_asked_before_a_change_still_gets_an_answer(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    early = asyncio.ensure_future(host.read(FileText(str(file))))
    await asyncio.sleep(0)
    host.forget()  # as `do` does when it ends, with a look of another step not sent yet
    late = asyncio.ensure_future(host.read(FileText(str(file)), FileText("/none")))
    assert await asyncio.wait_for(early, 20) == "one"
    assert await asyncio.wait_for(late, 20) == ("one", None)
    early = asyncio.ensure_future(host.read(FileText(str(tmp_path / "other"))))
    await asyncio.sleep(0)
    early.cancel()
    assert await asyncio.wait_for(host.read(FileText(str(tmp_path / "other"))), 20) is None


async def test_a_file_is_private_until_it_is_in_place(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    content = bytes(range(256)) * 300
    owner = f"{path.parent.parent.owner()}:{path.parent.parent.group()}"
    await host.write(str(path), content, mode="640", owner=owner)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o640
    assert not list(path.parent.glob("*.shipway-new"))


async def test_commands_end_at_the_first_that_fails(host: Host, tmp_path: Path) -> None:
    after = tmp_path / "after"
    with pytest.raises(CommandFailed, match="exit status 3") as caught:
        await host.do(
            Command(("true",)), Command(("sh", "-c", "echo said >&2; exit 3")), Command(("touch", str(after)))
        )
    assert "said" in caught.value.message
    assert caught.value.host == "here"
    assert not after.exists()


async def test_a_command_never_outlives_its_limit(host: Host) -> None:
    with pytest.raises(DeadlineExceeded, match="did not end within 1 s"):
        await host.do(Command(("sleep", "30"), seconds=1))


async def test_a_fact_that_hangs_is_bounded_and_the_others_answer(host: Host) -> None:
    slow, fast = await host.read(Says(("sleep", "30"), seconds=1), Says(("echo", "here")))
    assert slow.status == 124
    assert fast.stdout == "here\n"


async def test_output_that_looks_like_our_frame_is_only_output(host: Host) -> None:
    text = "\n--shipway-000000000000000000000000 0\n"
    first, second = await host.read(Says(("printf", "%s", text)), Says(("echo", "second")))
    assert (first.stdout, second.stdout) == (text, "second\n")


async def test_bytes_that_are_no_text_do_not_break_the_look(host: Host, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00x")
    said = await host.read(FileText(str(tmp_path / "binary")))
    assert said is not None
    assert said.endswith("x")


async def test_a_cut_connection_is_said_to_be_lost_and_made_again(server: Server, host: Host) -> None:
    await host.read(Says(("true",)))
    server.cut_after = 0.1
    with pytest.raises(ConnectionLost) as caught:
        await host.do(Command(("true",)))
    assert caught.value.may_retry
    assert (await host.read(Says(("echo", "back")))).stdout == "back\n"


async def test_a_changed_host_key_is_refused_and_nothing_is_sent(server: Server, pool: Pool, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    wrong = tmp_path / "wrong_hosts"
    wrong.write_text(f"[127.0.0.1]:{server.target.port} {other}")
    for accept_new in (False, True):
        target = replace(server.target, known_hosts=str(wrong), accept_new=accept_new)
        with pytest.raises(HostKeyMismatch) as caught:
            await pool.host(target).read(Says(("true",)))
        assert not caught.value.may_retry


async def test_a_new_host_is_taken_only_where_that_was_asked_for_and_then_kept(
    server: Server, pool: Pool, tmp_path: Path
) -> None:
    empty = tmp_path / "empty_hosts"
    with pytest.raises(HostKeyUnknown, match="ssh-ed25519 SHA256:") as unknown:
        await pool.host(replace(server.target, known_hosts=str(empty))).read(Says(("true",)))
    assert not unknown.value.may_retry
    assert str(empty) in unknown.value.message
    assert "accept-new" in unknown.value.fix
    assert f"ssh -p {server.target.port}" in unknown.value.fix
    assert not empty.exists()
    assert (await pool.host(replace(server.target, known_hosts=str(empty), accept_new=True)).read(Says(("true",)))).ok
    assert str(server.target.port) in empty.read_text()


async def test_known_hosts_is_parsed_once_for_all_connections_and_again_when_it_changed(
    server: Server, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = asyncssh.import_known_hosts

    def counted(text: str) -> asyncssh.SSHKnownHosts:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(asyncssh, "import_known_hosts", counted)
    names = [f"host{number}" for number in range(6)]
    hosts = [pool.host(replace(server.target, name=name)) for name in names]
    await asyncio.gather(*(one.read(Says(("true",))) for one in hosts))
    assert len(parsed) == 1
    os.utime(server.target.known_hosts, (1, 1))
    await pool.host(replace(server.target, name="later")).read(Says(("true",)))
    assert len(parsed) == 2


async def test_a_refused_key_a_missing_key_and_a_closed_port_are_three_errors(
    server: Server, pool: Pool, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    stranger.chmod(0o600)
    for target, error in (
        (replace(server.target, key=str(stranger)), LoginRefused),
        (replace(server.target, key=str(tmp_path / "none")), Refused),
        (replace(server.target, port=1), Unreachable),
    ):
        with pytest.raises(error):
            await pool.host(target).read(Says(("true",)))


async def test_a_tunnel_leads_to_a_port_behind_the_host(host: Host) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = behind.sockets[0].getsockname()[1]
    async with behind:
        local = await host.forward("127.0.0.1", port)
        assert await host.forward("127.0.0.1", port) == local
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        writer.write(b"through\n")
        assert await reader.readline() == b"through\n"
        writer.close()
        await writer.wait_closed()
