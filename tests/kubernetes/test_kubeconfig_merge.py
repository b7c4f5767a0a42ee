"""A person's kubeconfig keeps what is of other clusters; ours stands beside it, and a second look changes nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from lab.simulated.kube.pki import Authority, kubeconfig
from shipway.edits.kubeconfig import merge_kubeconfigs, same, server_in, with_server
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.ownership.evidence import ADMIN
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from tests.places.facts import KnownFacts, said

OURS, THEIRS = Authority(), Authority()
PATH = "/home/ops/.kube/config"


def config(authority: Authority, cluster: str = "te", user: str = "kubernetes-admin") -> str:
    return kubeconfig("https://192.0.2.1:6443", authority.certificate, cluster, user, authority.client(user))


def named(text: str, section: str) -> dict[str, Any]:
    return {one["name"]: one for one in yaml.safe_load(text)[section]}


def test_what_is_ours_alone_is_replaced_as_a_whole() -> None:
    assert merge_kubeconfigs(config(OURS), config(OURS)) is None


def test_a_persons_own_user_of_our_cluster_stays() -> None:
    """The file was taken for ours alone and replaced, without a copy: its only user was lost."""
    for own in (config(OURS, user="jane"), config(OURS, cluster="mine", user="jane")):
        text = merge_kubeconfigs(own, config(OURS))
        assert text is not None
        for section in ("clusters", "users", "contexts"):
            before, after = named(own, section), named(text, section)
            assert {name: after[name] for name in before if name != "te"} == {
                name: one for name, one in before.items() if name != "te"
            }
            assert set(after) == set(before) | set(named(config(OURS), section))
        assert yaml.safe_load(text)["current-context"] == yaml.safe_load(own)["current-context"]


@pytest.mark.parametrize("others", [False, True])
def test_what_a_person_set_in_our_context_stays(*, others: bool) -> None:
    """`kubectl config set-context --current --namespace` was undone by each run."""
    admin = config(OURS)
    own = yaml.safe_load((merge_kubeconfigs(config(THEIRS, "prod", "jane"), admin) if others else None) or admin)
    for one in own["contexts"]:
        one["context"]["namespace"] = "research" if one["name"] == "kubernetes-admin@te" else "another"
    own["contexts"].reverse()  # of a key that stands twice the last one counts
    text = merge_kubeconfigs(yaml.safe_dump(own), config(OURS))
    assert text is not None
    inner = named(text, "contexts")["kubernetes-admin@te"]["context"]
    assert inner == {"cluster": "te", "user": "kubernetes-admin", "namespace": "research"}
    assert len(named(text, "users")) == 1 + others


@pytest.mark.parametrize("section", ["clusters", "users", "contexts"])
def test_an_admin_conf_without_one_of_its_entries_is_refused(section: str) -> None:
    broken = yaml.safe_load(config(OURS)) | {section: []}
    with pytest.raises(ValueError, match=r"admin\.conf lacks an entry"):
        merge_kubeconfigs(config(THEIRS), yaml.safe_dump(broken))


def test_a_file_with_another_cluster_behind_ours_is_not_ours_alone() -> None:
    ours, theirs = yaml.safe_load(config(OURS)), yaml.safe_load(config(THEIRS, "prod", "jane"))
    both = {**ours, **{section: ours[section] + theirs[section] for section in ("clusters", "users", "contexts")}}
    text = merge_kubeconfigs(yaml.safe_dump(both), config(OURS))
    assert text is not None
    assert set(named(text, "clusters")) == {"te", "prod"}
    assert named(text, "users")["jane"] == theirs["users"][0]


def test_files_are_the_same_by_their_content_however_it_is_written() -> None:
    one = config(OURS)
    assert same(one, yaml.safe_dump(yaml.safe_load(one), sort_keys=True))
    assert not same(one, config(THEIRS))
    assert not same(one, one.replace("current-context: kubernetes-admin@te", "current-context: other"))
    assert same("- a", "- a")
    assert not same("- a", "- b")


def test_a_server_is_replaced_where_a_kubeconfig_names_one_and_every_other_byte_stays() -> None:
    text = f"# the server of https://192.0.2.1:6443\n{config(OURS)}"
    assert server_in(text) == "https://192.0.2.1:6443"
    assert with_server(text, "https://x:1") == text.replace("server: https://192.0.2.1:6443", "server: https://x:1")
    for wrong in ("a: 1\n", text + text):
        with pytest.raises(ValueError, match="unpack"):
            with_server(wrong, "https://x:1")


@pytest.mark.parametrize("cluster", ["prod", "te"])
def test_another_cluster_keeps_its_entries_even_of_the_same_names(cluster: str) -> None:
    """Every kubeadm cluster calls its user kubernetes-admin, and two clusters may have one name."""
    own, admin = config(THEIRS, cluster), config(OURS)
    text = merge_kubeconfigs(own, admin)
    assert text is not None
    for section in ("clusters", "users", "contexts"):
        before = named(own, section)
        after = named(text, section)
        assert {name: after[name] for name in before} == before
        assert len(after) == len(before) + 1
    found = yaml.safe_load(text)
    assert found["current-context"] == yaml.safe_load(own)["current-context"]
    ours = next(one["context"] for one in found["contexts"] if one["name"] not in named(own, "contexts"))
    key = named(text, "users")[ours["user"]]["user"]["client-key-data"]
    assert key == yaml.safe_load(admin)["users"][0]["user"]["client-key-data"]
    assert named(text, "clusters")[ours["cluster"]]["cluster"] == yaml.safe_load(admin)["clusters"][0]["cluster"]
    again = merge_kubeconfigs(text, admin)
    assert again is not None
    assert same(again, text)


def test_our_entries_follow_renewed_credentials_and_scalars_keep_their_text() -> None:
    own = yaml.safe_load(config(THEIRS, "prod"))
    own["users"].append({"name": "old", "user": {"username": "x", "password": "PASSWORD"}})
    text = merge_kubeconfigs(yaml.safe_dump(own).replace("PASSWORD", "022"), config(OURS))
    assert text is not None
    assert "password: 022\n" in text
    renewed = config(OURS)
    second = merge_kubeconfigs(text, renewed)
    assert second is not None
    assert renewed.partition("client-key-data: ")[2].split()[0] in second
    assert len(named(second, "users")) == 3


@pytest.mark.parametrize("own", ["", "- a\n", "clusters: 5\n", "users: {jane: {}}\n", "{", "\x00", "just words\n"])
def test_what_is_no_kubeconfig_is_said_to_be_none(own: str) -> None:
    with pytest.raises(ValueError, match="no kubeconfig"):
        merge_kubeconfigs(own, config(OURS))


@pytest.mark.parametrize("own", ["clusters: null\n", "current-context: ''\n", "{apiVersion: v1, kind: Config}\n"])
def test_an_empty_kubeconfig_gets_ours(own: str) -> None:
    text = merge_kubeconfigs(own, config(OURS))
    assert text is not None
    assert yaml.safe_load(text)["current-context"] == "kubernetes-admin@te"
    assert set(named(text, "clusters")) == {"te"}
    assert text.count("clusters:") == 1


def home(own: str, admin: str, *, there: bool = True, mode: str = "600") -> dict[Fact[Any], Any]:
    """Return what the control plane's host answers."""
    return {
        FileState(ADMIN): FileInfo("a" * 64, "600", "root:root", 1),
        FileText(ADMIN): admin,
        FileText(PATH): own,
        Says(("getent", "passwd", "ops")): said("ops:x:1000:1000::/home/ops:/bin/sh\n"),
        **({FileState(PATH): FileInfo("b" * 64, mode, "ops:ops", 1)} if there else {}),
    }


async def test_the_step_merges_keeps_a_copy_once_and_is_content_afterwards() -> None:
    own, admin, step = config(THEIRS, "prod"), config(OURS), UserHasKubeconfig("ops")
    host = KnownFacts(home(own, admin))
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    assert host.done == [f"cp -p -- {PATH} {PATH}.before-shipway"]
    text = host.written[PATH]
    assert set(named(own, "users")) < set(named(text, "users"))
    assert await step.check(cast("Host", KnownFacts(home(text, admin)))) is None
    assert await step.check(cast("Host", KnownFacts(home(text, admin, mode="644")))) is not None
    second = KnownFacts(
        {**home(own, admin), FileState(f"{PATH}.before-shipway"): FileInfo("c" * 64, "600", "ops:ops", 1)}
    )
    await step.apply(cast("Host", second))
    assert second.done == []


async def test_a_link_in_the_user_s_home_is_left_alone() -> None:
    host = KnownFacts(home(config(THEIRS, "prod"), config(OURS), there=False))
    assert await UserHasKubeconfig("ops").check(cast("Host", host)) is None


async def test_the_owner_is_the_account_as_the_host_names_it_and_not_as_one_logs_in() -> None:
    admin, path = config(OURS), "/srv/people/jane/.kube/config"
    account = "jane.doe@example.com:x:90001:90002::/srv/people/jane:/bin/bash\n"
    facts: dict[Fact[Any], Any] = {
        FileState(ADMIN): FileInfo("a" * 64, "600", "root:root", 1),
        FileText(ADMIN): admin,
        Says(("getent", "passwd", "jane.doe")): said(account),
    }
    step = UserHasKubeconfig("jane.doe")
    host = KnownFacts(facts)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    assert host.done == [
        "install -d -m 700 -o jane.doe@example.com -g 90002 -- /srv/people/jane/.kube",
        f"install -m 600 -o jane.doe@example.com -g 90002 -- {ADMIN} {path}",
    ]
    facts |= {FileState(path): FileInfo("a" * 64, "600", "jane.doe@example.com:staff", 1), FileText(path): admin}
    assert await step.check(cast("Host", KnownFacts(facts))) is None
