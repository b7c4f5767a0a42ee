"""Which private keys are offered: what is named, what a person has, what an agent holds; no file ends a run unsaid."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from shipway.errors import Refused
from shipway.host.ssh import keys
from shipway.host.ssh.config import Way
from shipway.host.ssh.keys import TRIES, Offer, offer
from shipway.host.target import Target

WORDS = "open sesame"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder .ssh of a person without an agent and a terminal, of whom nothing was asked yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(keys, "_ASKED", {})
    monkeypatch.setattr("sys.stdin", None)
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh"


def written(path: Path, *, passphrase: str | None = None) -> bytes:
    """Write a key and its public half beside it; return that half."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    form = "pkcs8-pem" if passphrase else "openssh"  # this one shows nothing of the key without its passphrase
    path.write_bytes(key.export_private_key(form, passphrase=passphrase))
    path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key())
    return key.public_data


def way_of(*named: Path, key: str = "", **more: Any) -> Way:
    return Way(Target("te1", "10.0.0.1", key=key), ("/none",), tuple(map(str, named)), **more)


def public(offered: Offer) -> list[bytes]:
    return [key.public_data for key in offered.keys]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """Yield the socket of an agent that holds nothing."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    ends = time.monotonic() + 10
    while not socket.exists() and time.monotonic() < ends:
        time.sleep(0.02)
    yield socket
    process.terminate()
    process.wait()


async def held(agent: Path, path: Path) -> None:
    """Let the agent hold a key."""
    async with asyncssh.connect_agent(str(agent)) as client:
        await client.add_keys([asyncssh.read_private_key(path, WORDS)])


async def test_without_a_named_key_those_of_a_person_are_offered_in_the_order_of_ssh(home: Path) -> None:
    rsa, ed25519 = written(home / "id_rsa"), written(home / "id_ed25519")
    written(home / "other")
    assert public(await offer(way_of(), "te1")) == [ed25519, rsa]


async def test_what_is_named_is_offered_and_nothing_else(home: Path) -> None:
    written(home / "id_rsa")
    one, two = written(home / "one"), written(home / "two")
    assert public(await offer(way_of(Path("~/.ssh/one"), home / "two"), "te1")) == [one, two]


async def test_a_usual_file_that_is_no_key_keeps_no_other_one_from_being_offered(home: Path) -> None:
    (home / "id_ed25519").write_text("no key\n")
    written(home / "id_ecdsa", passphrase=WORDS)
    one = written(home / "id_rsa")
    assert public(await offer(way_of(), "te1")) == [one]
    (home / "id_rsa").unlink()
    assert public(await offer(way_of(), "te1")) == [], "nobody named the one with a passphrase"


@pytest.mark.parametrize("content", [b"no key\n", None])
async def test_a_named_file_that_is_no_key_or_cannot_be_read_is_refused_with_the_reason(
    home: Path, content: bytes | None
) -> None:
    if content is None:
        (home / "named").mkdir()
    else:
        (home / "named").write_bytes(content)
    with pytest.raises(Refused, match=r"named cannot be read \(.*(Is a directory|Invalid).*\)") as refused:
        await offer(way_of(home / "named"), "te1")
    assert (refused.value.code, refused.value.host) == ("SHW-348", "te1")


async def test_a_file_that_is_not_there_is_passed_over_unless_the_cluster_file_means_it(
    home: Path,
) -> None:
    one = written(home / "one")
    assert public(await offer(way_of(home / "none", home / "one"), "te1")) == [one]
    with pytest.raises(Refused, match="No such file"):
        await offer(way_of(home / "none", key=str(home / "none")), "te1")


async def test_a_file_with_passphrase_in_its_name_has_none_for_that(home: Path) -> None:
    (home / "passphrase").mkdir()
    with pytest.raises(Refused, match="Is a directory") as refused:
        await offer(way_of(home / "passphrase"), "te1")
    assert refused.value.code == "SHW-348"


async def test_a_public_key_only_says_which_of_the_agent_is_meant(home: Path, agent: Path) -> None:
    one = written(home / "one")
    offered = await offer(way_of(home / "one.pub", only=True, agent=str(agent)), "te1")
    assert (public(offered), offered.identities, offered.agent) == ([], (one,), str(agent))


@pytest.mark.parametrize("only", [True, False])
async def test_other_keys_of_the_agent_stay_out_where_that_is_wanted_and_all_that_are_meant_are_known(
    home: Path, *, only: bool
) -> None:
    one = written(home / "one")
    two = written(home / "two", passphrase=WORDS)
    (home / "two").with_suffix(".pub").rename(home / "away")
    assert (await offer(way_of(home / "one", only=only), "te1")).identities == ((one,) if only else None)
    both = await offer(way_of(home / "one", home / "two", only=only), "te1")
    assert (public(both), both.identities) == ([one], None), "which of the agent's keys the other one is nobody knows"
    (home / "away").rename(home / "two.pub")
    both = await offer(way_of(home / "one", home / "two", only=only), "te1")
    assert both.identities == ((one, two) if only else None)


async def test_of_the_usual_files_only_those_that_are_there_say_which_of_the_agent_are_meant(home: Path) -> None:
    one = written(home / "id_rsa")
    assert (await offer(way_of(only=True), "te1")).identities == (one,)


async def test_an_agent_that_is_not_wanted_is_not_asked_what_it_holds(
    home: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    written(home / "locked", passphrase=WORDS)
    await held(agent, home / "locked")
    assert public(await offer(way_of(home / "locked"), "te1")) == []
    with pytest.raises(Refused, match="no agent holds it"):
        await offer(way_of(home / "locked", agent="none"), "te1")


@pytest.mark.parametrize(
    ("named", "variable", "asked"),
    [
        (None, "/run/agent", "/run/agent"),
        (None, "", ""),
        ("none", "/run/agent", ""),
        ("", "/run/agent", ""),
        ("/own", "/run/agent", "/own"),
    ],
)
async def test_the_agent_is_that_of_the_configuration_else_that_of_the_session(
    monkeypatch: pytest.MonkeyPatch, named: str | None, variable: str, asked: str
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", variable)
    assert (await offer(way_of(agent=named), "te1")).agent == asked
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert (await offer(way_of(), "te1")).agent == ""


async def test_a_key_with_a_passphrase_is_refused_only_where_nothing_else_can_be_offered(
    home: Path, agent: Path
) -> None:
    written(home / "locked", passphrase=WORDS)
    other = written(home / "other")
    for agents in ("none", str(home / "no-agent"), str(agent)):  # none, one that is gone, one that holds nothing
        with pytest.raises(Refused, match="no agent holds it") as refused:
            await offer(way_of(home / "locked", agent=agents), "te1")
        assert refused.value.code == "SHW-350"
    assert public(await offer(way_of(home / "locked", home / "other"), "te1")) == [other]
    written(home / "third", passphrase=WORDS)
    await held(agent, home / "third")
    assert public(await offer(way_of(home / "locked", agent=str(agent)), "te1")) == [], "the agent has another one"


def terminal(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let a person type these; return what they were asked."""
    asked, left = list[str](), list(answers)

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return left.pop(0)

    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)}))
    monkeypatch.setattr("getpass.getpass", ask)
    return asked


async def test_a_person_is_asked_once_for_all_hosts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = written(home / "locked", passphrase=WORDS)
    asked = terminal(monkeypatch, "wrong", WORDS)
    for _ in range(3):
        assert public(await offer(way_of(home / "locked"), "te1")) == [one]
    assert len(asked) == 2


async def test_a_passphrase_that_was_changed_since_is_asked_for_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home / "locked", passphrase=WORDS[::-1])
    asked = terminal(monkeypatch, WORDS[::-1], WORDS)
    await offer(way_of(home / "locked"), "te1")
    one = written(home / "locked", passphrase=WORDS)
    os.utime(home / "locked", (1, 1))  # whatever the file system's clock is worth
    assert public(await offer(way_of(home / "locked"), "te1")) == [one]
    assert len(asked) == 2


async def test_a_passphrase_that_is_wrong_three_times_is_refused_and_not_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home / "locked", passphrase=WORDS)
    asked = terminal(monkeypatch, *["wrong"] * TRIES)
    with pytest.raises(Refused, match=f"wrong {TRIES} times") as refused:
        await offer(way_of(home / "locked"), "te1")
    assert refused.value.code == "SHW-350"
    assert len(asked) == TRIES
    assert keys._ASKED == {}


async def test_a_key_that_the_agent_holds_is_neither_asked_for_nor_offered_twice(
    home: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home / "locked", passphrase=WORDS)
    await held(agent, home / "locked")
    asked = terminal(monkeypatch)
    offered = await offer(way_of(home / "locked", agent=str(agent)), "te1")
    assert (offered.keys, offered.agent, asked) == ((), str(agent), [])


async def test_a_terminal_that_is_none_asks_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(home / "locked", passphrase=WORDS)
    terminal(monkeypatch, WORDS)
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": staticmethod(lambda: False)}))
    with pytest.raises(Refused, match="no terminal to ask at"):
        await offer(way_of(home / "locked"), "te1")
