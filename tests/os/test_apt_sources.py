"""A foreign apt source is switched off by its address and suite, its own entry alone; all else stays byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pysequoia import Tsk

from shipway.cluster.parts import AptRepository, Key
from shipway.errors import CommandFailed, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.host.session import Host
from shipway.os.debian import apt
from shipway.os.debian.apt import LOCKED, OWN_SOURCES, RepositoryIs
from shipway.os.debian.apt_sources import (
    REPLACED,
    SOURCES_PARTS,
    WHY,
    Distribution,
    is_source_file,
    without_entries,
    without_entry,
)
from shipway.script import Output
from tests.places.facts import KnownFacts, said

DOCKER, ONE, OFF = "http://mirror.corp.example/docker", "http://mirror.corp.example/one", "# off by shipway: "
OTHER = "Types: deb\nURIs: http://mirror.corp.example/base\nSuites: stable\nComponents: main\nSigned-By: /t.asc\n"
OURS = OTHER.replace("base", "docker/").replace("/t.asc", "/other.asc")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "company.list",
            f"# deb {DOCKER} stable main\ndeb [signed-by=/t.asc] http://mirror.corp.example/base stable main\n",
        ),
        ("internal.list", f"deb [signed-by=/t.asc] {DOCKER}-internal stable main\n"),
        ("internal.list", f"deb {DOCKER}/sub stable main\n"),
        ("suite.list", f"deb {DOCKER} jammy stable\n"),
        ("flat.list", f"deb {DOCKER} stable/\n"),
        ("note.list", f"deb http://mirror.corp.example/base stable main # not {DOCKER} stable\n"),
        ("ubuntu.sources", OTHER.replace("base", "docker").replace("stable", "jammy")),
        ("comment.sources", f"# {DOCKER}\n# URIs: {DOCKER}\n{OTHER}"),
        ("field.sources", f"{OTHER}X-Note: {DOCKER} stable\n"),
        ("off.sources", f"{OURS}Enabled: no\n"),
        *((f"{one}.sources", f"{OURS}Enabled: {one}\n") for one in ("Off", "false", "0")),
        ("addressless.sources", "Types: deb\nSuites: stable\n"),
        ("suiteless.sources", f"Types: deb\nURIs: {DOCKER}\n"),
        ("blank.sources", f" {DOCKER}\n"),
        ("empty.sources", ""),
    ],
)
def test_another_repository_stays_as_it_is(path: str, text: str) -> None:
    assert without_entry(text, path, DOCKER, "stable") == text


@pytest.mark.parametrize("kind", ["deb", "deb-src", " deb  [ arch=amd64 signed-by=/a ]"])
@pytest.mark.parametrize("end", ["", "/"])
def test_a_line_of_this_address_and_suite_is_commented_out(kind: str, end: str) -> None:
    before, line, after = "# mine\n\n", f"{kind} {DOCKER}{end} stable main extra # note", "\ndeb http://other x y\n"
    assert without_entry(f"{before}{line}{after}", "x.list", DOCKER, "stable") == f"{before}{OFF}{line}{after}"


def test_a_stanza_of_this_address_and_suite_is_switched_off_and_its_neighbours_stay() -> None:
    text = f"# head\n{OTHER}\n\n{OURS}\n{OTHER}"
    edited = without_entry(text, "all.sources", DOCKER, "stable")
    off = OURS.replace("URIs", f"{WHY}\nEnabled: no\nURIs")
    assert edited == f"# head\n{OTHER}\n\n{off}\n{OTHER}"
    assert without_entry(edited, "all.sources", DOCKER, "stable") == edited


@pytest.mark.parametrize(
    ("stanza", "left"),
    [
        ("URIs: A\nSuites: s t\n", "URIs: A\nWHY\nSuites: t\n"),
        ("URIs: A B\nSuites: s\n", "WHY\nURIs: B\nSuites: s\n"),
        ("URIs: A\nSuites:\n s\n # odd\n t\n", "URIs: A\nWHY\nSuites: # odd t\n"),
        ("URIs: A\nSuites:\n s\n# note\n t\n", "URIs: A\nWHY\nSuites: t\n# note\n"),
        ("uris: A\nsuites: s\nenabled: yes\n", "uris: A\nsuites: s\nWHY\nenabled: no\n"),
        ("URIs: A\nSuites: s\nEnabled:\n", "URIs: A\nSuites: s\nWHY\nEnabled: no\n"),
        ("URIs: A B\nSuites: s t\n", "WHY\nURIs: B\nSuites: s t\n\nWHY\nURIs: A\nWHY\nSuites: t\n"),
    ],
)
def test_a_stanza_of_several_repositories_keeps_the_others(stanza: str, left: str) -> None:
    def spelled(text: str) -> str:
        return text.replace("WHY", WHY).replace("A", DOCKER).replace("B", ONE)

    head = "Types: deb\n"
    edited = without_entry(head + spelled(stanza), "x.sources", DOCKER, "s")
    assert edited.replace(head, "").rstrip("\n") == spelled(left).rstrip("\n")


@given(st.text(), st.sampled_from(["x.list", "x.sources"]))
def test_any_text_is_edited_once_and_what_is_no_entry_stays(text: str, path: str) -> None:
    edited = without_entry(text, path, DOCKER, "stable")
    assert without_entry(edited, path, DOCKER, "stable") == edited
    assert edited == text or DOCKER in text


def test_only_files_that_apt_reads_are_edited() -> None:
    assert is_source_file("ubuntu.sources")
    assert not any(is_source_file(name) for name in ("a.list.save", "a b.list", "x;y.list", "$(x).sources", ".list~"))


async def test_the_files_of_a_host_lose_this_one_entry_and_no_file() -> None:
    mine = f"deb {DOCKER} stable main\ndeb http://mirror.corp.example/base stable main\n"
    facts: dict[Fact[Any], Any] = {
        FileText("/etc/os-release"): "ID=debian\nVERSION_CODENAME=bookworm\n",
        Listing(SOURCES_PARTS): ("a.list", "b.sources", "c.list.save", "shipway-docker.list"),
        FileText(f"{SOURCES_PARTS}/a.list"): mine,
        FileText(f"{SOURCES_PARTS}/b.sources"): OTHER,
        FileText(f"{SOURCES_PARTS}/c.list.save"): mine,
        FileText(f"{SOURCES_PARTS}/shipway-docker.list"): mine,
        FileText("/etc/apt/sources.list"): OTHER,
    }
    key = {"path": "/dev/null"}
    repository = AptRepository.model_validate({"uri": DOCKER, "suite": "stable", "components": ["main"], "key": key})
    host = KnownFacts(facts)
    await RepositoryIs("docker", repository, (1, 36))._step_aside(cast("Host", host), f"{DOCKER}/", "stable")
    assert host.written == {f"{SOURCES_PARTS}/a.list": OFF + mine}
    assert host.done == []


PIN = "A" * 40


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ({"url": "http://mirror.corp.example/key.asc"}, False),
        ({"url": "http://mirror.corp.example/key.asc", "fingerprint": PIN}, True),
        ({"url": "https://mirror.corp.example/key.asc"}, True),
        ({"path": "/etc/keys/key.asc"}, True),
    ],
)
def test_a_key_that_anybody_in_between_could_replace_is_refused(key: dict[str, str], *, taken: bool) -> None:
    if taken:
        assert Key.model_validate(key)
        return
    with pytest.raises(ValidationError, match="by http:// needs its fingerprint"):
        Key.model_validate(key)


# --- the distribution's own archive, which sources.base_apt replaces

DEBIAN = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
SECURITY = DEBIAN.replace("debian\n", "debian-security\n").replace("bookworm bookworm-updates", "bookworm-security")


@pytest.mark.parametrize(
    "line",
    [
        "deb http://deb.debian.org/debian bookworm main contrib non-free-firmware",
        "deb [arch=amd64] http://de.archive.ubuntu.com/ubuntu/ bookworm-updates main universe # as installed",
        "deb-src http://ftp.halifax.rwth-aachen.de/debian-security/ bookworm-security main",
        "deb http://security.debian.org/debian-security bookworm/updates main",
        "deb cdrom:[Debian GNU/Linux 12 _Bookworm_ - Official amd64]/ bookworm main",
        "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main",
        "deb http://m.example/debian bookworm main contrib non-free non-free-firmware restricted universe multiverse",
    ],
)
def test_a_line_of_the_distributions_archive_or_a_mirror_of_it_is_switched_off(line: str) -> None:
    text = f"# mine\n{line}\n"
    assert without_entries(text, "/etc/apt/sources.list", Distribution("bookworm")) == f"# mine\n{OFF}{line}\n"


@pytest.mark.parametrize(
    "text",
    [
        "deb https://download.docker.com/linux/debian bookworm stable\n",
        "deb https://apt.releases.hashicorp.com bookworm main\n",
        "deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main\n",
        "deb http://deb.debian.org/debian trixie main\n",
        "deb http://mirror.corp.example/internal ./\n",
        "deb http://mirror.corp.example/debian bookworm-internal main\n",
        "deb http://mirror.corp.example/debian bookworm/\n",
        "deb http://mirror.corp.example/debian bookworm main internal\n",
        "# deb http://deb.debian.org/debian bookworm main\n",
    ],
)
def test_what_somebody_added_beside_the_distributions_entries_stays(text: str) -> None:
    assert without_entries(text, "/etc/apt/sources.list", Distribution("bookworm")) == text


def test_a_stanza_of_the_distribution_is_switched_off_and_a_foreign_one_in_its_file_stays() -> None:
    text, off = f"{DEBIAN}\n{OURS}\n{SECURITY}", f"{REPLACED}\nEnabled: no\nURIs"
    edited = without_entries(text, "debian.sources", Distribution("bookworm"))
    assert edited == f"{DEBIAN.replace('URIs', off)}\n{OURS}\n{SECURITY.replace('URIs', off)}"
    assert without_entries(edited, "debian.sources", Distribution("bookworm")) == edited
    flat = DEBIAN.replace("bookworm bookworm-updates", "bookworm/").replace("Components: main\n", "")
    for other in (DEBIAN.replace("main", "main internal"), DEBIAN.replace("bookworm", "trixie"), flat):
        assert without_entries(other, "debian.sources", Distribution("bookworm")) == other


async def test_base_apt_edits_the_hosts_own_files_moves_none_and_sees_an_entry_that_came_back() -> None:
    foreign = "deb https://download.docker.com/linux/debian bookworm stable\n"
    answers: dict[Fact[Any], Any] = {
        FileText("/etc/os-release"): "ID=debian\nVERSION_CODENAME=bookworm\n",
        Says(("uname", "-m")): said("x86_64\n"),
        **{FileText(path): None for path in OWN_SOURCES},
        FileText(OWN_SOURCES[0]): f"deb http://deb.debian.org/debian bookworm main\n{foreign}",
        FileText(OWN_SOURCES[1]): DEBIAN,
    }
    given = {"uri": "https://mirror.corp.example/debian", "suite": "bookworm", "key": {"path": "/dev/null"}}
    repository = AptRepository.model_validate({**given, "components": ["main"]})
    host = KnownFacts(answers)
    step = RepositoryIs("base", repository, (1, 36), alone=True)
    assert sorted(await step._own(cast("Host", host))) == sorted(OWN_SOURCES[:2])
    await step._replace_own(cast("Host", host))
    assert host.done == []
    first, second = (host.written[path] for path in OWN_SOURCES[:2])
    assert first == f"{OFF}deb http://deb.debian.org/debian bookworm main\n{foreign}"
    assert "Enabled: no" in second
    assert await RepositoryIs("docker", repository, (1, 36))._own(cast("Host", host)) == {}


def test_a_bases_sources_are_looked_for_where_debian_and_ubuntu_have_them() -> None:
    parts = f"{SOURCES_PARTS}/debian.sources", f"{SOURCES_PARTS}/ubuntu.sources"
    assert set(OWN_SOURCES) == {"/etc/apt/sources.list", *parts}


# --- the step that configures a repository

MADE = Tsk.generate("site <site@example.com>").extract_certificate()
PINNED = MADE.fingerprint.upper()
KEYRING, LIST = "/etc/apt/keyrings/shipway-x.asc", f"{SOURCES_PARTS}/shipway-x.list"
ACCEPTED = "/var/lib/shipway/apt-x.accepted"
LINE = f"deb [signed-by={KEYRING}] {DOCKER}/debian bookworm main\n"
RUNNING: dict[Fact[Any], Any] = {
    FileText("/etc/os-release"): "ID=debian\nVERSION_CODENAME=bookworm\n",
    Says(("uname", "-m")): said("x86_64\n"),
}


def configured(key: dict[str, Any], *, alone: bool = False) -> RepositoryIs:
    """Return the step of a repository with this key."""
    place = {"uri": f"{DOCKER}/{{os}}", "suite": "{codename}", "components": ["main"], "key": key}
    return RepositoryIs("x", AptRepository.model_validate(place), (1, 36), alone=alone)


def keyring(digest: str = "a" * 64) -> FileInfo:
    """Return the state of a keyring with this digest."""
    return FileInfo(digest, "644", "root:root", 1)


@pytest.mark.parametrize(
    ("pinned", "facts", "drift"),
    [
        (True, {}, None),
        (True, {FileText(LIST): None}, "no such source"),
        (True, {FileText(LIST): LINE.replace("bookworm", "trixie")}, "another source line"),
        (True, {FileState(KEYRING): None, FileText(ACCEPTED): f"None {PINNED} 0\n"}, "no key that was checked"),
        (True, {FileState(KEYRING): keyring("b" * 64)}, "no key that was checked"),
        (True, {FileText(ACCEPTED): None}, "no key that was checked"),
        (True, {FileText(ACCEPTED): f"{'a' * 64} {'B' * 40} 0\n"}, f"key {'B' * 40}"),
        (False, {FileText(ACCEPTED): f"{'a' * 64} {'B' * 40} 0\n"}, None),
        (True, {FileText(ACCEPTED): f"{'a' * 64} {PINNED} 1000\n"}, "the key is expired"),
        (True, {FileText(ACCEPTED): f"{'a' * 64} {PINNED}\n"}, None),
        (True, {FileText(ACCEPTED): f"{'a' * 64} {PINNED} 99999999999\n"}, None),
        (True, {FileText(OWN_SOURCES[1]): DEBIAN}, f"{OWN_SOURCES[1]} names the distribution's own archive"),
    ],
)
async def test_a_source_is_as_wanted_where_its_line_its_checked_key_and_nothing_else_are_there(
    facts: dict[Fact[Any], Any], drift: str | None, *, pinned: bool
) -> None:
    there = {FileText(LIST): LINE, FileState(KEYRING): keyring(), FileText(ACCEPTED): f"{'a' * 64} {PINNED} 0\n"}
    step = configured({"path": "/key.asc", **({"fingerprint": PINNED} if pinned else {})}, alone=True)
    found = await step.check(cast("Host", KnownFacts({**RUNNING, **there, **facts})))
    assert (found and found.have) == drift


class Updating(KnownFacts):
    """A host whose apt fetches lists, or fails to; it keeps writes among what was done."""

    fails = False

    async def write(self, path: str, content: bytes, **more: str) -> None:
        """Keep it."""
        await super().write(path, content, **more)
        self.done.append(f"write {path}")

    async def succeed(self, name: str, words: Sequence[str], **more: int) -> Output:
        """Keep it, or fail."""
        if self.fails:
            raise CommandFailed("apt-get update", exit_status=100)
        return await super().succeed(name, words, **more)


@pytest.mark.parametrize("alone", [False, True])
async def test_a_repositorys_note_that_all_is_well_comes_last(tmp_path: Path, *, alone: bool) -> None:
    (tmp_path / "key.asc").write_text(str(MADE))
    step = configured({"path": str(tmp_path / "key.asc"), "fingerprint": PINNED}, alone=alone)
    other = LINE.replace(f"[signed-by={KEYRING}] ", "")
    seen: dict[Fact[Any], Any] = {
        **RUNNING,
        Listing(SOURCES_PARTS): ("old.list",),
        FileText(f"{SOURCES_PARTS}/old.list"): other,
        FileText(OWN_SOURCES[1]): DEBIAN,
    }
    host = Updating(seen)
    await step.apply(cast("Host", host))
    aside = [f"write {SOURCES_PARTS}/old.list", f"write {KEYRING}", f"write {LIST}"]
    own = [f"write {OWN_SOURCES[1]}"] if alone else []
    assert host.done[:-2] == [*aside, *own]
    assert host.done[-2].startswith("apt: apt-get ")
    assert host.done[-2].endswith(f" Dir::Etc::sourcelist={LIST} {ONLY_AND_STRICT} update")
    assert host.done[-1] == f"write {ACCEPTED}"
    assert host.written[LIST] == LINE
    assert host.written[KEYRING] == str(MADE)
    assert host.written[ACCEPTED] == f"{hashlib.sha256(str(MADE).encode()).hexdigest()} {PINNED} 0\n"
    broken = Updating(seen)
    broken.fails = True
    with pytest.raises(CommandFailed):
        await step.apply(cast("Host", broken))
    assert ACCEPTED not in broken.written


ONLY_AND_STRICT = "-o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any"


async def test_a_key_that_cannot_be_read_here_changes_nothing_there(tmp_path: Path) -> None:
    host = Updating(RUNNING)
    with pytest.raises(Refused, match="the x repository's key cannot be read: "):
        await configured({"path": str(tmp_path / "none.asc")}).apply(cast("Host", host))
    assert host.done == []


async def test_a_base_without_its_own_archive_in_a_file_leaves_that_file() -> None:
    foreign = "deb https://download.docker.com/linux/debian bookworm stable\n"
    host = KnownFacts({**RUNNING, FileText(OWN_SOURCES[0]): foreign})
    assert await configured({"path": "/key.asc"}, alone=True)._own(cast("Host", host)) == {}


# --- another package manager's lock


@pytest.mark.parametrize(
    ("error", "locked", "times"),
    [
        (CommandFailed("apt", exit_status=100, code=LOCKED), 2, 3),
        (CommandFailed("apt", exit_status=100, code=LOCKED), 999, None),
        (CommandFailed("apt", exit_status=100), 999, 1),
        (ValueError("something else"), 999, 1),
    ],
)
async def test_a_lock_is_waited_for_as_long_as_is_said_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception, locked: int, times: int | None
) -> None:
    monkeypatch.setattr(apt, "LOCK_EVERY", 0.01)
    monkeypatch.setattr(apt, "LOCK_SECONDS", 600.0 if times else 0.05)
    tried = 0

    async def act() -> None:
        nonlocal tried
        tried += 1
        if tried <= locked:
            raise error

    if locked < 3:
        await apt.wait_for_lock(act)
    else:
        with pytest.raises(type(error)) as raised:
            await apt.wait_for_lock(act)
        assert raised.value is error
    assert tried == times if times else 1 < tried < 999
