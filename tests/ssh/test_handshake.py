"""How an attempt to connect ends: what is tried again, which host keys are taken, and who is told to do what."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from shipway.errors import HostKeyMismatch, HostKeyUnknown, LoginRefused, Refused, ShipwayError, Unreachable
from shipway.host.ssh import handshake
from shipway.host.ssh.config import Way
from shipway.host.ssh.handshake import ATTEMPTS, FIRST_PAUSE, connect
from shipway.host.ssh.keys import Offer
from shipway.host.target import Target

KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2))


def line(name: str, key: asyncssh.SSHKey = KEY) -> str:
    return f"{name} {key.export_public_key().decode()}"


def put(way: Way, text: str, at: int = 0) -> None:
    """Let a known_hosts file hold this."""
    Path(way.known_hosts[at]).write_text(text, encoding="utf-8")


def kept(way: Way) -> str:
    """Return what the first of them holds."""
    return Path(way.known_hosts[0]).read_text(encoding="utf-8")


class Net:
    """What stands for asyncssh.connect: it raises these, the last for ever, once each was shown the client.

    `greeted` tells whether sshd said its version; None: there was no connection at all.
    """

    def __init__(self, *errors: BaseException | None, banner: str = "", greeted: bool | None = False) -> None:
        self.errors, self.banner, self.greeted = list(errors), banner, greeted
        self.asked: list[dict[str, Any]] = []
        self.pauses: list[float] = []
        self.shown: asyncssh.SSHKey | None = None
        self.before: Callable[[], object] = lambda: None  # what happens before the host shows its key

    async def connect(self, *_: Any, client_factory: Callable[[], Any], **more: Any) -> Any:
        """Connect, or fail."""
        self.asked.append(more)
        client = client_factory()
        version = "SSH-2.0-x" if self.greeted else None
        if self.greeted is not None:
            client.connection_made(SimpleNamespace(get_extra_info=lambda _: version))
        if self.banner:
            client.auth_banner_received(self.banner, "")
        self.before()
        if self.shown and not client.validate_host_public_key("10.0.0.1", "10.0.0.1", 22, self.shown):
            raise asyncssh.HostKeyNotVerifiable("no")
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if error:
            raise error
        return "connected"


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Callable[[Net], Net]:
    """Return what lets connections go over this net, with no pause that takes any time."""
    real = asyncio.sleep

    def use(net: Net) -> Net:
        async def pause(seconds: float) -> None:
            net.pauses.append(seconds)
            await real(0)

        async def nothing(*_: Any) -> Offer:
            return Offer((), (), "", None)

        monkeypatch.setattr(asyncio, "sleep", pause)
        monkeypatch.setattr(asyncssh, "connect", net.connect)
        monkeypatch.setattr(handshake, "offer", nothing)
        return net

    return use


@pytest.fixture
def way(tmp_path: Path) -> Way:
    target = Target("te1", "10.0.0.1", user="ops", connect_seconds=5)
    return Way(target, (str(tmp_path / "known"), str(tmp_path / "more")))


async def failed(way: Way) -> ShipwayError:
    with pytest.raises(ShipwayError) as raised:
        await connect(way, None)
    assert raised.value.host == "te1"
    assert raised.value.message.startswith(("ops@10.0.0.1:22: ", "ProxyCommand"))
    return raised.value


GONE = [asyncssh.ConnectionLost("gone"), ConnectionResetError(), BrokenPipeError()]


@pytest.mark.parametrize("greeted", [False, None])
@pytest.mark.parametrize("error", GONE)
async def test_an_sshd_that_closes_before_its_version_is_tried_again_with_pauses(
    over: Callable[[Net], Net], way: Way, error: BaseException, *, greeted: bool | None
) -> None:
    net = over(Net(error, error, None, greeted=greeted))
    assert await connect(way, None) == "connected"
    assert len(net.asked) == 3
    assert len(net.pauses) == 2
    assert all(pause <= FIRST_PAUSE * 2**tries for tries, pause in enumerate(net.pauses))
    net = over(Net(error))
    assert type(await failed(way)) is Unreachable
    assert len(net.asked) == ATTEMPTS


@pytest.mark.parametrize("error", GONE)
async def test_one_that_closes_behind_its_version_is_not_tried_again(
    over: Callable[[Net], Net], way: Way, error: BaseException
) -> None:
    net = over(Net(error, greeted=True))
    assert type(await failed(way)) is Unreachable
    assert len(net.asked) == 1


async def test_an_attempt_has_its_limit_whoever_says_that_time_is_over(over: Callable[[Net], Net], way: Way) -> None:
    over(Net(TimeoutError()))
    assert "no SSH connection within 5 s" in (await failed(way)).message

    class Hanging(Net):
        async def connect(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

    over(Hanging(None))
    error = await failed(replace(way, target=replace(way.target, connect_seconds=0.1)))
    assert (type(error), error.may_retry) == (Unreachable, True)
    assert "within 0 s" in error.message


def disconnected(reason: str) -> asyncssh.DisconnectError:
    return asyncssh.DisconnectError(2, reason)


EXPIRED = "Your account has expired."


@pytest.mark.parametrize(
    ("error", "banner", "greeted", "kind", "said"),
    [
        (asyncssh.PermissionDenied("no"), "", True, LoginRefused, "the SSH key is not accepted"),
        (asyncssh.PermissionDenied("no"), EXPIRED, True, LoginRefused, f"not accepted: {EXPIRED}"),
        (disconnected("Too many authentication failures"), "", True, LoginRefused, "MaxAuthTries"),
        (disconnected("Too many authentication failures"), EXPIRED, True, LoginRefused, "MaxAuthTries"),
        (disconnected("bye"), EXPIRED, True, LoginRefused, f"the account is refused: {EXPIRED}"),
        (disconnected("bye"), EXPIRED, False, Unreachable, "no SSH connection"),
        (disconnected("bye"), "", True, Unreachable, "no SSH connection"),
        (asyncssh.PermissionDenied("no"), "System is booting up.", True, Unreachable, "lets nobody in yet"),
        (asyncssh.ChannelOpenError(1, "no"), "", True, LoginRefused, "the jump host forwards no connections"),
        (asyncssh.ChannelOpenError(2, "no"), "", True, Unreachable, "no SSH connection"),
        (asyncssh.KeyExchangeFailed("none"), "", True, HostKeyMismatch, "no algorithm in common"),
        (OSError(113, "no route"), "", False, Unreachable, "no SSH connection"),
        (socket.gaierror(-2, "unknown name"), "", False, Unreachable, "cannot be resolved (unknown name)"),
        (ValueError("odd"), "", False, Refused, "the SSH settings are refused"),
        (FileNotFoundError(2, "none"), "", False, Unreachable, "no SSH connection"),
    ],
)
async def test_each_end_of_an_attempt_names_who_is_to_act(
    over: Callable[[Net], Net], way: Way, *, error: Exception, banner: str, greeted: bool, kind: type, said: str
) -> None:
    net = over(Net(error, banner=banner, greeted=greeted))
    found = await failed(way)
    assert type(found) is kind
    assert said in found.message
    assert found.may_retry is (kind is Unreachable)
    assert len(net.asked) == 1


@pytest.mark.parametrize("error", [FileNotFoundError(2, "none"), PermissionError(13, "denied")])
async def test_a_proxy_command_that_cannot_be_started_is_this_machines_fault(
    over: Callable[[Net], Net], way: Way, error: Exception
) -> None:
    over(Net(error))
    found = await failed(replace(way, command="nc-of-site %h %p"))
    assert type(found) is Refused
    assert "ProxyCommand nc-of-site cannot be started" in found.message


async def test_what_a_proxy_command_does_not_reach_may_be_reached_later(over: Callable[[Net], Net], way: Way) -> None:
    over(Net(asyncssh.ConnectionLost("gone"), greeted=True))
    with pytest.raises(Unreachable, match="no SSH connection"):
        await connect(replace(way, command="nc-of-site %h %p"), None)


async def test_only_what_is_offered_is_offered(over: Callable[[Net], Net], way: Way, monkeypatch: Any) -> None:
    async def offered(*_: Any) -> Offer:
        return Offer((KEY,), ("cert",), "/agent", (b"one",))

    net = over(Net(None))
    await connect(way, None)
    monkeypatch.setattr(handshake, "offer", offered)
    jump = cast("Any", object())
    await connect(replace(way, alias="seven", command="nc"), jump)
    names = (
        "client_keys",
        "client_certs",
        "agent_path",
        "agent_identities",
        "host_key_alias",
        "tunnel",
        "proxy_command",
    )
    nothing, all_of_it = ([asked[name] for name in names] for asked in net.asked)
    assert nothing == [[], [], None, None, None, (), ()]
    assert all_of_it == [[KEY], ["cert"], "/agent", [b"one"], "seven", jump, "nc"]
    assert {asked["preferred_auth"] for asked in net.asked} == {"publickey"}


@pytest.mark.parametrize("accept_new", [False, True])
async def test_a_new_host_is_taken_only_where_that_is_asked_for_and_a_changed_key_never(
    over: Callable[[Net], Net], way: Way, *, accept_new: bool
) -> None:
    put(way, line("10.0.0.9"))
    way = replace(way, target=replace(way.target, accept_new=accept_new))
    net = over(Net(None))
    net.shown = KEY
    if accept_new:
        assert await connect(way, None) == "connected"
        assert kept(way) == line("10.0.0.9") + line("10.0.0.1")
    else:
        error = await failed(way)
        assert type(error) is HostKeyUnknown
        assert KEY.get_fingerprint() in error.message
        assert "ssh -p 22 -o UserKnownHostsFile=" in error.fix
        assert kept(way) == line("10.0.0.9")
    for at in (0, 1):
        put(way, "")
        put(way, line("10.0.0.1", OTHER), at)
        error = await failed(way)
        assert type(error) is HostKeyMismatch
        assert KEY.get_fingerprint() in error.message
        assert kept(way) in ("", line("10.0.0.1", OTHER))


@pytest.mark.parametrize("accept_new", [False, True])
async def test_a_key_that_another_connection_kept_meanwhile_is_no_alarm_unless_it_is_revoked(
    over: Callable[[Net], Net], way: Way, *, accept_new: bool
) -> None:
    way = replace(way, target=replace(way.target, accept_new=accept_new))
    net = over(Net(None))
    net.shown, net.before = KEY, lambda: put(way, line("10.0.0.1"))
    assert await connect(way, None) == "connected"
    assert kept(way) == line("10.0.0.1")
    put(way, "")
    net.before = lambda: put(way, line("10.0.0.1") + f"@revoked {line('*')}")
    assert type(await failed(way)) is HostKeyMismatch


async def test_a_known_hosts_entry_for_another_port_is_of_another_host(over: Callable[[Net], Net], way: Way) -> None:
    put(way, line("[10.0.0.1]:2222", OTHER))
    net = over(Net(None))
    net.shown = KEY
    assert type(await failed(way)) is HostKeyUnknown


async def test_a_key_that_was_never_shown_is_an_alarm(over: Callable[[Net], Net], way: Way) -> None:
    over(Net(asyncssh.HostKeyNotVerifiable("no")))
    error = await failed(way)
    assert type(error) is HostKeyMismatch
    assert "it shows its key" in error.message


async def test_the_way_to_look_at_a_new_host_leads_through_its_jump_host(over: Callable[[Net], Net], way: Way) -> None:
    net = over(Net(None))
    net.shown = KEY
    jump = Target("te1 (jump host)", "gate", port=2022, user="me")
    error = await failed(replace(way, target=replace(way.target, jump=jump)))
    assert "ssh -J me@gate:2022 -p 22" in error.fix


async def test_files_that_cannot_be_read_are_reported_before_anybody_is_connected_to(
    over: Callable[[Net], Net], way: Way, tmp_path: Path
) -> None:
    net = over(Net(None))
    with pytest.raises(Refused, match="known_hosts file"):
        await connect(replace(way, known_hosts=(str(tmp_path),)), None)
    assert net.asked == []
