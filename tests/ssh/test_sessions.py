"""Sessions on one SSH connection: how many at once, whose answer, and what of a broken one is said; all in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from shipway.errors import ConnectionLost, DeadlineExceeded, LoginRefused, ShipwayError, Transient
from shipway.host.ssh import channels as module
from shipway.host.ssh import connection as connections
from shipway.host.ssh import sudo
from shipway.host.ssh.channels import AT_ONCE, PAUSES, Answer, ChannelRefused, Channels
from shipway.host.ssh.connection import Connection
from shipway.host.target import Target
from shipway.script import OPENING, READER

REFUSED = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
TARGET = Target("te1", "10.0.0.1", user="ops")


@dataclass
class Channel:
    """One session: what was sent to it, and whether it was closed."""

    wire: Wire
    command: str
    answer: Answer
    sent: bytes = b""
    eof: bool = False
    aborted: bool = False
    ended: bool = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.sent += data

    def write_eof(self) -> None:
        """Keep it."""
        self.eof = True

    def abort(self) -> None:
        """Close it."""
        self.aborted = True
        self.end()

    def end(self, out: bytes = b"", status: int | None = 0) -> None:
        """Let the program end."""
        if not self.ended:
            self.ended = True
            self.wire.open -= 1
            self.answer.data_received(out, None)
            if status is not None:
                self.answer.exit_status_received(status)
            self.answer.connection_lost(None)


@dataclass
class Wire:
    """A connection whose sshd allows so many sessions; `answers` makes of each what it does."""

    allowed: int = 10
    code: int = REFUSED
    answers: Callable[[Channel], None] = lambda channel: channel.end()
    error: BaseException | None = None
    open: int = 0
    most: int = 0
    tries: int = 0
    refused: int = 0
    closed: bool = False
    aborted: bool = False
    shut: bool = False
    made: list[Channel] = field(default_factory=list)
    tunnels: list[tuple[Any, ...]] = field(default_factory=list)

    async def create_session(self, factory: Callable[[], Answer], command: str, **_: Any) -> None:
        """Open a session, or refuse it."""
        self.tries += 1
        if self.error:
            raise self.error
        if self.open >= self.allowed:
            self.refused += 1
            await asyncio.sleep(0)
            raise asyncssh.ChannelOpenError(self.code, "no more sessions")
        self.open += 1
        self.most = max(self.most, self.open)
        channel = Channel(self, command, factory())
        self.made.append(channel)
        channel.answer.connection_made(cast("Any", channel))
        asyncio.get_running_loop().call_later(0.01, self.answers, channel)
        await asyncio.sleep(0)

    def is_closed(self) -> bool:
        """Say so."""
        return self.closed

    def abort(self) -> None:
        """End it."""
        self.aborted = self.closed = True

    def close(self) -> None:
        """End it in order."""
        self.shut = self.closed = True

    async def wait_closed(self) -> None:
        """Be closed."""

    async def forward_local_port(self, *way: Any) -> Any:
        """Return a listener."""
        self.tunnels.append(way)
        if self.error:
            raise self.error
        return SimpleNamespace(get_port=lambda: 4000 + len(self.tunnels))


def on(wire: Wire) -> Channels:
    return Channels(cast("Any", wire))


async def ran(channels: Channels, *, seconds: float = 5.0, end: bool = True) -> Answer:
    return await asyncio.wait_for(channels.run("a", b"fed", end=end, seconds=seconds), 5)


@pytest.fixture(autouse=True)
def paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0,) * len(PAUSES))


async def test_never_more_sessions_than_sshd_can_free_at_once_are_open_and_none_fewer() -> None:
    wire = Wire()
    channels = on(wire)
    for _ in range(2):
        await asyncio.gather(*(ran(channels) for _ in range(4 * AT_ONCE)))
        assert (wire.most, wire.refused, wire.open) == (AT_ONCE, 0, 0)


@pytest.mark.parametrize("code", [1, 2, 3, 4])  # RFC 4254, 5.1
async def test_what_sshd_does_not_open_waits_until_one_of_ours_has_ended(code: int) -> None:
    wire = Wire(allowed=2, code=code)
    channels = on(wire)
    await asyncio.gather(*(ran(channels) for _ in range(12)))
    assert len(wire.made) == 12
    assert 0 < wire.refused <= AT_ONCE - 2 + 12, "at the start, then at most one for each that ended"


async def test_commands_that_take_long_keep_no_short_one_from_the_places_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSES", (60.0,))  # only where none is open there is one
    wire = Wire(allowed=3, answers=lambda channel: None if channel.command == "long" else channel.end())
    channels = on(wire)
    long = [asyncio.create_task(channels.run("long", b"", end=True, seconds=60)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.gather(*(ran(channels) for _ in range(6)))
    assert wire.refused
    assert not any(one.done() for one in long)
    for channel in wire.made:
        channel.end()
    await asyncio.gather(*long)


async def test_a_refusal_of_another_kind_and_one_of_a_connection_that_broke_are_no_full_house() -> None:
    for wire in (Wire(allowed=0, code=99), Wire(allowed=0, closed=True)):
        with pytest.raises(asyncssh.ChannelOpenError):
            await ran(on(wire))
        assert wire.tries == 1


async def test_an_sshd_that_opens_none_though_none_is_open_is_asked_a_few_times_and_then_said_so() -> None:
    wire = Wire(allowed=0)
    channels = on(wire)
    with pytest.raises(ChannelRefused) as refused:
        await ran(channels)
    assert (refused.value.ever, wire.tries) == (False, len(PAUSES) + 1)
    wire.allowed = 1
    await ran(channels)
    wire.allowed = 0
    with pytest.raises(ChannelRefused) as refused:
        await ran(channels)
    assert refused.value.ever


async def test_an_sshd_that_allows_one_again_after_a_pause_is_used() -> None:
    wire = Wire(allowed=0)
    channels = on(wire)
    waiting = asyncio.create_task(ran(channels))
    await asyncio.sleep(0)
    wire.allowed = 1
    assert (await waiting).status == 0
    await asyncio.gather(*(ran(channels) for _ in range(5)))
    assert len(wire.made) == 6


async def test_an_answer_is_what_its_own_program_printed_and_how_it_ended() -> None:
    def answered(channel: Channel) -> None:
        channel.answer.data_received(b"out", None)
        channel.answer.data_received(b"err", asyncssh.EXTENDED_DATA_STDERR)
        channel.answer.exit_signal_received("KILL", False, "", "")  # noqa: FBT003 - asyncssh's
        channel.end(status=None)
        channel.answer.connection_lost(None)  # once more, as a connection that breaks behind it does

    wire = Wire(answers=answered)
    answer = await ran(on(wire))
    assert (bytes(answer.out), bytes(answer.err), answer.signal, answer.status) == (b"out", b"err", "KILL", None)
    assert not wire.made[0].aborted, "it has ended by itself"


@pytest.mark.parametrize("end", [True, False])
async def test_the_input_goes_out_whole_with_its_end_where_it_has_one(*, end: bool) -> None:
    wire = Wire()
    await ran(on(wire), end=end)
    (channel,) = wire.made
    assert (channel.sent, channel.eof) == (b"fed", end)


async def test_a_command_that_runs_out_of_its_time_is_closed_and_holds_no_place() -> None:
    wire = Wire(allowed=1, answers=lambda _: None)
    channels = on(wire)
    with pytest.raises(TimeoutError):
        await ran(channels, seconds=0.05)
    assert wire.made[0].aborted
    wire.answers = Channel.end
    assert (await ran(channels)).status == 0
    assert wire.refused == 0


async def test_time_in_the_queue_does_not_count() -> None:
    wire = Wire(answers=lambda channel: asyncio.get_running_loop().call_later(0.1, channel.end) and None)
    channels = on(wire)
    answers = await asyncio.gather(*(ran(channels, seconds=1.5) for _ in range(20 * AT_ONCE)))
    assert all(answer.status == 0 for answer in answers)


# --- the connection around them


class Host:
    """A host that is connected to: which wires it hands out, the last for ever."""

    def __init__(self, *wires: Wire, user: str = "root", password: str = "") -> None:
        self.wires, self.user, self.password = list(wires), user, password
        self.connects = 0

    async def connect(self, target: Target) -> Any:
        """Connect."""
        self.connects += 1
        await asyncio.sleep(0)
        wire = self.wires.pop(0) if len(self.wires) > 1 else self.wires[0]
        return wire, SimpleNamespace(target=replace(target, user=self.user))

    def connection(self) -> Connection:
        """Return the connection to it."""

        async def secret(_: str) -> str:
            return self.password

        named = replace(TARGET, sudo_password_secret="block" if self.password else "")
        return Connection(named, self.connect, secret)


def reading(said: bytes = b"", *, err: bytes = b"", status: int | None = 0) -> Callable[[Channel], None]:
    """Return what stands for a shell: it hands the script's token back with what it said."""

    def answered(channel: Channel) -> None:
        found = re.search(OPENING.encode() + rb"\w+", channel.sent)
        token = found[0] if found else b""
        channel.answer.data_received(token + b"\n" + err, asyncssh.EXTENDED_DATA_STDERR)
        channel.end(b"noise\n" + token + b"\n" + said, status)

    return answered


def saying(text: bytes, status: int | None = 1) -> Callable[[Channel], None]:
    """Return what only says something: no script begins."""
    return lambda channel: channel.end(text, status)


async def script(connection: Connection, **more: Any) -> tuple[str, str]:
    return await asyncio.wait_for(connection.script("true\n", seconds=5, **more), 20)


async def failed(connection: Connection) -> ShipwayError:
    with pytest.raises(ShipwayError) as raised:
        await script(connection)
    assert raised.value.host == "te1"
    return raised.value


async def test_one_connection_serves_all_and_what_the_script_printed_is_returned() -> None:
    host = Host(Wire(answers=reading(b"out", err=b"err")))
    connection = host.connection()
    assert await asyncio.gather(*(script(connection) for _ in range(3))) == [("out", "err")] * 3
    assert host.connects == 1


@pytest.mark.parametrize("stdin", [b"input", b"", None])
async def test_a_script_gets_its_input_and_its_end_where_it_has_one(stdin: bytes | None) -> None:
    wire = Wire(answers=reading())
    await script(Host(wire).connection(), stdin=stdin)
    (channel,) = wire.made
    assert channel.sent.endswith(b"true\n}\n" + (stdin or b""))
    assert channel.eof is (stdin is not None)


@pytest.mark.parametrize(
    ("user", "password", "command"),
    [
        ("root", "", READER),
        ("root", "correct horse", READER),
        ("ops", "", sudo.WITHOUT),
        ("ops", "correct horse", sudo.WITH),
    ],
)
async def test_a_script_runs_as_root_by_sudo_where_the_user_is_not(user: str, password: str, command: str) -> None:
    def answered(channel: Channel) -> None:
        tried = channel.sent == b"correct horse\n"
        channel.end(b"", sudo.ACCEPTED) if tried else reading(b"out")(channel)

    wire = Wire(answers=answered)
    assert (await script(Host(wire, user=user, password=password).connection()))[0] == "out"
    asked = [(one.command, one.sent.startswith(b"correct horse\n")) for one in wire.made]
    asks = command == sudo.WITH
    assert asked == [(sudo.WITH, True)] * asks + [(command, asks)]


async def test_a_wrong_password_is_sent_once_in_a_run() -> None:
    wire = Wire(answers=saying(b"Sorry, try again.\n"))
    host = Host(wire, user="ops", password="wrong")  # noqa: S106 - made up
    connection = host.connection()
    for _ in range(3):
        error = await failed(connection)
        assert (type(error), error.code) == (LoginRefused, "SHW-349")
    assert (host.connects, len(wire.made), wire.aborted) == (1, 1, True)


async def test_a_password_that_could_not_be_tried_is_tried_again() -> None:
    def answered(channel: Channel) -> None:
        channel.end(b"", sudo.ACCEPTED) if channel.sent == b"right\n" else reading(b"out")(channel)

    short, good = Wire(answers=saying(b"fork: Resource temporarily unavailable")), Wire(answers=answered)
    connection = Host(short, good, user="ops", password="right").connection()  # noqa: S106 - made up
    assert (await failed(connection)).code == "SHW-213"
    assert short.aborted
    assert (await script(connection))[0] == "out"


@pytest.mark.parametrize(
    ("user", "password", "said", "code"),
    [
        ("ops", "", b"sudo: a password is required\n", "SHW-305"),
        ("root", "", b"sudo: a password is required\n", "SHW-347"),  # sudo was not asked
        ("ops", "", b"Sorry, try again.\n", "SHW-347"),  # there is no password
        ("root", "x", b"Sorry, try again.\n", "SHW-347"),
        ("ops", "x", b"sudo: a terminal is required\n", "SHW-305"),
        ("ops", "x", b"sudo: 1 incorrect password attempt\n", "SHW-349"),
        ("root", "", b"This account is currently not available.\n", "SHW-347"),
        ("root", "", b"sh: Cannot allocate memory\n", "SHW-213"),
    ],
)
async def test_who_kept_a_script_from_beginning_is_reported(user: str, password: str, said: bytes, code: str) -> None:
    error = await failed(Host(Wire(answers=saying(said)), user=user, password=password).connection())
    assert error.code == code
    assert said.decode().strip() in error.message


@pytest.mark.parametrize(
    ("error", "closes"),
    [
        (asyncssh.ConnectionLost("gone"), False),
        (OSError(104, "reset"), False),
        (AssertionError(), True),
        (AttributeError(), True),
    ],
)
async def test_a_connection_that_broke_is_lost_and_made_anew(error: BaseException, *, closes: bool) -> None:
    broken, good = Wire(error=error, closed=False), Wire(answers=reading(b"out"))
    host = Host(broken, good)
    connection = host.connection()
    await connection._open()
    broken.closed = closes
    if closes:  # it ends as the channel opens, behind the look whether it lives
        broken.closed = False
        create = broken.create_session

        async def ends(*words: Any, **more: Any) -> None:
            broken.closed = True
            await create(*words, **more)

        broken.create_session = ends  # type: ignore[method-assign]
    lost = await failed(connection)
    assert type(lost) is ConnectionLost
    assert broken.aborted
    assert (await script(connection))[0] == "out"
    assert host.connects == 2


async def test_a_fault_of_asyncssh_on_a_living_connection_is_not_called_a_broken_one() -> None:
    with pytest.raises(AssertionError):
        await script(Host(Wire(error=AssertionError())).connection())


async def test_a_command_that_does_not_answer_in_time_breaks_no_connection() -> None:
    wire = Wire(answers=lambda _: None)
    host = Host(wire)
    connection = host.connection()
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        await connection.script("true\n", seconds=0.05)
    wire.answers = reading(b"out")
    assert (await script(connection))[0] == "out"
    assert host.connects == 1


@pytest.mark.parametrize("closed", [True, False])
async def test_an_answer_without_an_end_is_a_lost_one_and_only_a_closed_connection_is_made_anew(
    *, closed: bool
) -> None:
    def broken(channel: Channel) -> None:
        channel.wire.closed = closed
        reading(b"half", status=None)(channel)

    first, second = Wire(answers=broken), Wire(answers=reading(b"out"))
    host = Host(first, second)
    connection = host.connection()
    assert type(await failed(connection)) is ConnectionLost
    assert first.aborted is closed
    first.answers = reading(b"out")
    assert (await script(connection))[0] == "out"
    assert host.connects == 1 + closed


async def test_a_program_that_a_signal_ended_has_answered() -> None:
    def killed(channel: Channel) -> None:
        channel.answer.exit_signal_received("KILL", False, "", "")  # noqa: FBT003 - asyncssh's
        reading(b"out", status=None)(channel)

    assert (await script(Host(Wire(answers=killed)).connection()))[0] == "out"


@pytest.mark.parametrize(("ever", "kind", "code"), [(True, Transient, "SHW-212"), (False, LoginRefused, "SHW-347")])
async def test_a_connection_that_opens_no_session_is_retired_and_its_tunnels_live_on(
    kind: type[ShipwayError], code: str, *, ever: bool
) -> None:
    full, good = Wire(answers=reading(b"out")), Wire(answers=reading(b"out"))
    host = Host(full, good)
    connection = host.connection()
    port = await connection.forward("10.0.0.9", 6443)
    if ever:
        await script(connection)
    full.allowed = 0
    error = await failed(connection)
    assert (type(error), error.code) == (kind, code)
    assert (full.aborted, full.shut, host.connects) == (False, False, 1)
    assert (await script(connection))[0] == "out"
    assert host.connects == 2
    assert port == 4001
    await connection.close()
    assert full.shut
    assert good.shut


async def test_what_broke_late_leaves_alone_what_was_made_since() -> None:
    first, second = Wire(), Wire(answers=reading(b"out"))
    connection = Host(first, second).connection()
    _, channels = await connection._open()
    first.closed = True
    await connection._open()
    first.error = asyncssh.ConnectionLost("gone")
    with pytest.raises(ConnectionLost):
        await connection._run(channels, "a", b"", end=True, seconds=1)
    connection._retire(cast("Any", first))
    assert not second.aborted
    assert (await script(connection))[0] == "out"
    assert connection._retired == []


async def test_a_tunnel_is_made_once_for_each_destination_and_anew_with_its_connection() -> None:
    first, second = Wire(), Wire()
    connection = Host(first, second).connection()
    ports = [await connection.forward("10.0.0.9", port) for port in (6443, 6443, 2379)]
    assert (ports, first.tunnels) == (
        [4001, 4001, 4002],
        [("127.0.0.1", 0, "10.0.0.9", 6443), ("127.0.0.1", 0, "10.0.0.9", 2379)],
    )
    first.closed = True
    await connection.forward("10.0.0.9", 6443)
    assert len(second.tunnels) == 1
    second.error = OSError(98, "in use")
    with pytest.raises(ConnectionLost, match=r"no tunnel to 10\.0\.0\.9:1"):
        await connection.forward("10.0.0.9", 1)


def test_the_time_for_a_password_is_more_than_pam_waits_after_a_wrong_one() -> None:
    assert connections.SUDO_SECONDS >= 10
