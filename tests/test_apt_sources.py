"""A foreign apt source is switched off by its address and suite, its own entry alone; all else stays byte for byte."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shipway.cluster.parts import AptRepository, Key
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.host.session import Host
from shipway.os.debian.apt import OWN_SOURCES, RepositoryIs
from shipway.os.debian.apt_sources import (
    REPLACED,
    SOURCES_PARTS,
    WHY,
    Distribution,
    is_source_file,
    without_entries,
    without_entry,
)
from tests.facts_place import Told, said

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
    host = Told(facts)
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
    host = Told(answers)
    step = RepositoryIs("base", repository, (1, 36), alone=True)
    assert sorted(await step._own(cast("Host", host))) == sorted(OWN_SOURCES[:2])
    await step._replace_own(cast("Host", host))
    assert host.done == []
    first, second = (host.written[path] for path in OWN_SOURCES[:2])
    assert first == f"{OFF}deb http://deb.debian.org/debian bookworm main\n{foreign}"
    assert "Enabled: no" in second
    assert await RepositoryIs("docker", repository, (1, 36))._own(cast("Host", host)) == {}
