"""What is taken back out of files that others write to as well: our own entries and lines, and not one of theirs."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.simulated.kube.pki import Authority
from shipway.edits.kubeconfig import merge_kubeconfigs, without_clusters
from shipway.edits.lines import (
    BEGIN,
    fstab_without_swap,
    hosts_file,
    with_modules,
    with_swap_again,
    with_sysctls,
    without_block,
    without_lines,
    without_sysctls,
)
from shipway.facts.commands import Says
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.os.debian.apt_sources import with_entries_again, without_entry
from shipway.ownership.evidence import authorities
from shipway.steps.reset.files import UserWithoutCluster
from tests.kubernetes.test_kubeconfig_merge import OURS, THEIRS, config, named
from tests.places.facts import KnownFacts, said

LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20), max_size=6)
SETTINGS = {"net.ipv4.ip_forward": "1"}


@cache
def trusted(authority: Authority) -> frozenset[str]:
    return authorities(authority.certificate.decode())


def text_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@given(LINES)
def test_our_block_goes_and_every_other_line_of_the_hosts_file_stays(lines: list[str]) -> None:
    own = text_of([line for line in lines if not line.startswith(("# BEGIN shipway", "# END shipway", "127.0.1.1"))])
    edited = hosts_file(own, {"te1": "10.0.0.1", "te2": "10.0.0.2"})
    back = without_block(edited, "te2")
    named_there = any("te2" in line.split("#", 1)[0].split()[1:] for line in own.split("\n"))
    assert back == own + ("" if named_there else "127.0.1.1 te2\n")
    assert without_block(back, "te2") == back
    assert without_block(own, "te2") == own, "a file without our block is left as it is"
    assert without_block(edited, "") == own, "a host that tells no name of its own gets no line"


def test_a_host_whose_name_somebody_wrote_down_gets_no_second_line_for_it() -> None:
    own = "127.0.0.1 localhost\n192.0.2.2 te2.example te2 # rack 4\n"
    edited = hosts_file(own, {"te1": "10.0.0.1", "te2": "10.0.0.2"})
    assert without_block(edited, "te2") == own
    assert without_block(edited, "rack") == f"{own}127.0.1.1 rack\n", "a remark names nobody"


def test_a_block_without_its_end_is_left() -> None:
    text = f"127.0.0.1 localhost\n{BEGIN}\n10.0.0.1 te1\n10.0.0.9 printer\n"
    assert without_block(text, "te1") == text


@given(LINES)
def test_settings_of_others_stay_and_ours_go(lines: list[str]) -> None:
    own = text_of([line for line in lines if "ip_forward" not in line])
    assert without_sysctls(with_sysctls(own, SETTINGS), SETTINGS) == own
    other = f"{own}net.ipv4.ip_forward = 0\n"
    assert without_sysctls(other, SETTINGS) == other, "a value that is not ours is somebody's"


@given(LINES)
def test_modules_of_others_stay_and_ours_go(lines: list[str]) -> None:
    own = text_of([line for line in lines if line.strip() != "overlay"])
    assert without_lines(with_modules(own, ("overlay",), ()), ("overlay",)) == own


@given(LINES)
def test_swap_lines_come_back_as_they_were(lines: list[str]) -> None:
    own = text_of([line for line in lines if not line.startswith("# off by")])
    for text in (own, own + "/swap.img none swap sw 0 0\n"):
        assert with_swap_again(fstab_without_swap(text)) == text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/apt/sources.list", "# a comment\ndeb http://a/ x main\ndeb http://b/ y main\n"),
        (
            "/etc/apt/sources.list.d/a.sources",
            "Types: deb\nURIs: http://a/\nSuites: x\nComponents: main\n\nTypes: deb\n",
        ),
    ],
)
def test_entries_that_were_switched_off_are_on_again(path: str, text: str) -> None:
    off = without_entry(text, path, "http://a/", "x")
    assert off != text
    assert with_entries_again(off, path) == text
    assert with_entries_again(text, path) == text


def test_a_stanza_that_was_only_shortened_keeps_what_it_has() -> None:
    path = "/etc/apt/sources.list.d/a.sources"
    shortened = without_entry("Types: deb\nURIs: http://a/\nSuites: x y\nComponents: main\n", path, "http://a/", "x")
    assert "Suites: y\n" in shortened
    assert with_entries_again(shortened, path) == shortened


def test_what_a_person_switched_off_stays_off() -> None:
    stanza = "Types: deb\nURIs: http://a/\nSuites: x\nEnabled: no\n"
    assert with_entries_again(stanza, "/etc/apt/sources.list.d/a.sources") == stanza
    assert with_entries_again("# deb http://a/ x main\n", "/etc/apt/sources.list") == "# deb http://a/ x main\n"


def test_only_our_cluster_goes_out_of_a_kubeconfig() -> None:
    own = config(THEIRS, "prod", "jane")
    merged = merge_kubeconfigs(own, config(OURS))
    assert merged is not None
    back = without_clusters(merged, trusted(OURS))
    assert back is not None
    assert yaml.safe_load(back) == yaml.safe_load(own)
    assert without_clusters(back, trusted(OURS)) == back
    assert without_clusters(config(OURS), trusted(OURS)) is None


@pytest.mark.parametrize(
    "own",
    [f"# of the site\n{config(THEIRS, 'prod', 'jane')}", "current-context: ''  # none yet\n"],
    ids=["theirs", "none"],  # an authority that is made anew would be another name in each of pytest's processes
)
def test_a_kubeconfig_without_our_cluster_keeps_every_byte_and_is_never_taken_for_ours_alone(own: str) -> None:
    assert without_clusters(own, trusted(OURS)) == own


def test_a_user_that_another_context_needs_stays_and_the_current_context_leads_somewhere() -> None:
    both: dict[str, Any] = yaml.safe_load(config(OURS))
    theirs = yaml.safe_load(config(THEIRS, "prod", "kubernetes-admin"))
    for section in ("clusters", "contexts"):
        both[section] += theirs[section]
    back = without_clusters(yaml.safe_dump(both), trusted(OURS))
    assert back is not None
    assert set(named(back, "users")) == {"kubernetes-admin"}
    assert set(named(back, "contexts")) == {"kubernetes-admin@prod"}
    assert yaml.safe_load(back)["current-context"] == "kubernetes-admin@prod"


@pytest.mark.parametrize("text", ["- a list", "clusters: {}\n", ":\n:"])
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no kubeconfig"):
        without_clusters(text, trusted(OURS))


PATH = "/home/ops/.kube/config"
PASSWD = Says(("getent", "passwd", "ops"))


def a_host(text: str | None) -> KnownFacts:
    known: dict[Any, Any] = {PASSWD: said("ops:x:1000:1000::/home/ops:/bin/sh\n"), FileText(PATH): text}
    return KnownFacts({**known, FileState(PATH): FileInfo("c" * 64, "600", "ops:ops", 1)})


@pytest.mark.parametrize(
    ("text", "done", "written"),
    [
        (config(OURS), [f"rm -f -- {PATH}"], []),
        (merge_kubeconfigs(config(THEIRS, "prod", "jane"), config(OURS)), [], [PATH]),
    ],
    ids=["ours alone", "beside another"],
)
async def test_the_users_kubeconfig_loses_our_cluster(text: str, done: list[str], written: list[str]) -> None:
    host, step = a_host(text), UserWithoutCluster("ops", trusted(OURS))
    assert await step.check(cast("Host", host)) is not None
    await step.apply(cast("Host", host))
    assert (host.done, list(host.written)) == (done, written)


@pytest.mark.parametrize(
    "text", [None, "", "- no kubeconfig", config(THEIRS, "prod", "jane")], ids=["none", "empty", "a list", "another's"]
)
async def test_a_kubeconfig_without_our_cluster_is_left(text: str | None) -> None:
    assert await UserWithoutCluster("ops", trusted(OURS)).check(cast("Host", a_host(text))) is None
    assert await UserWithoutCluster("ops", frozenset()).check(cast("Host", a_host(config(OURS)))) is None
