"""The address for clients outside by kube-vip: its static pod, what is left when it goes, one way at a time."""

from __future__ import annotations

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from shipway.cluster.model import Cluster
from shipway.cluster.parts import KUBE_VIP_IMAGE
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.os.families import family_of
from shipway.script import Output
from shipway.steps.reset.kubelet import ContainersGone, KubeletFolderEmpty
from shipway.steps.system.origins import origins
from shipway.steps.system.own_service import OwnGone
from shipway.steps.vip import keepalived, kube_vip, listed
from shipway.steps.vip.held import VipFree, VipHeld, VipOneWay, neighbour, told_otherwise
from shipway.steps.vip.kube_vip import (
    ADMIN,
    FRESH,
    KEPT,
    MANIFEST,
    KubeVipGone,
    VipPod,
    VipPodReadAdmin,
    address_in,
    manifest,
    pod,
)
from tasks.context import Run
from tasks.retire.work import reset_steps, without
from tests.kubernetes.test_api_vip import ANSWERS, HELD, VIP, Away, host, quiet, with_vip
from tests.ownership.test_leading import cluster
from tests.places.facts import DEBIAN, KnownFacts, said

OURS = FileText(KEPT)


def by_kube_vip(**more: Any) -> Cluster:
    return with_vip(by="kube-vip", **more)


def admin(digest: str) -> dict[Any, Any]:
    return {FileState(ADMIN): FileInfo(digest, "600", "root:root", 1)}


def text_of(made: Cluster) -> str:
    return manifest(made, made.hosts[0], "eth0", "a" * 64)


# --- the pod


@pytest.mark.parametrize("version", all_versions())
def test_the_pod_is_one_that_every_api_takes(version: str) -> None:
    made = by_kube_vip()
    kubernetes_validate.validate(pod(made, made.hosts[1], "eth0", "a" * 64), version, strict=True)


def test_the_pod_asks_its_own_api_server_serves_nothing_else_and_may_do_no_more_than_hold_an_address() -> None:
    made = by_kube_vip()
    (read,) = yaml.safe_load_all(manifest(made, made.hosts[1], "ib0", "a" * 64))
    (container,) = read["spec"]["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert (values["address"], values["vip_interface"], values["kubernetes_addr"]) == (VIP, "ib0", "10.9.0.2:6443")
    assert all(isinstance(value, str) for name, value in values.items() if name != "vip_nodename")
    assert (values["cp_enable"], values["vip_arp"], values["vip_leaderelection"]) == ("true", "true", "true")
    assert "svc_enable" not in values
    assert values["prometheus_server"].startswith("127.0.0.1:")  # its default is every address of the host
    lease, renew, retry = (int(values[f"vip_{name}"]) for name in ("leaseduration", "renewdeadline", "retryperiod"))
    assert lease > renew > retry > 0
    assert int(values["vip_arpRate"]) >= 500  # less is taken for 3000
    assert container["securityContext"] == {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}}
    assert container["volumeMounts"] == [{"name": "kubeconfig", "mountPath": ADMIN, "readOnly": True}]
    assert read["spec"]["volumes"][0]["hostPath"] == {"path": ADMIN, "type": "File"}
    assert container["image"] == KUBE_VIP_IMAGE
    assert ":v" in KUBE_VIP_IMAGE
    own = "registry.example.com/kube-vip@sha256:" + "0" * 64
    assert pod(by_kube_vip(image=f"'{own}'"), made.hosts[1], "eth0", "")["spec"]["containers"][0]["image"] == own


def test_a_file_of_ours_says_which_address_it_is_about_and_no_other_does() -> None:
    assert address_in(text_of(by_kube_vip())) == VIP
    for text in (None, "", "apiVersion: v1\n", f"x {text_of(by_kube_vip())}"):
        assert address_in(text) == ""


async def test_the_kubelet_finds_the_whole_manifest_or_none_and_a_renewed_admin_conf_starts_the_pod_anew() -> None:
    made = by_kube_vip()
    step, here = VipPod(made, made.hosts[0]), host(facts=admin("a" * 64))
    assert (await step.check(here)) is not None  # type: ignore[arg-type]
    await step.apply(here)  # type: ignore[arg-type]
    assert list(here.written) == [KEPT]
    assert here.done == [f"install -m 600 -T -- {KEPT} {FRESH}", f"mv -fT -- {FRESH} {MANIFEST}"]
    folder, _, name = FRESH.rpartition("/")
    assert (folder, name[0]) == (MANIFEST.rpartition("/")[0], ".")  # one rename, of a name that the kubelet passes over
    there = {FileState(MANIFEST): FileInfo(sha256(here.written[KEPT].encode()).hexdigest(), "600", "root:root", 1)}
    assert await step.check(host(facts={**admin("a" * 64), **there})) is None  # type: ignore[arg-type]
    assert await step.check(host(facts={**admin("b" * 64), **there})) is not None  # type: ignore[arg-type]


async def test_one_that_was_started_with_another_admin_conf_is_started_anew_and_nothing_else_of_it_changes() -> None:
    step, text = VipPodReadAdmin(), text_of(by_kube_vip())
    new = manifest(by_kube_vip(), by_kube_vip().hosts[0], "eth0", "b" * 64)
    for facts, wanted in (
        ({**admin("a" * 64), FileText(MANIFEST): text}, True),
        ({**admin("b" * 64), FileText(MANIFEST): text}, False),
        ({**admin("b" * 64), FileText(MANIFEST): f"x {text}"}, True),  # not ours
        (admin("b" * 64), True),
        ({FileText(MANIFEST): text}, True),
    ):
        assert (await step.check(host(facts=facts)) is None) is wanted  # type: ignore[arg-type]
    here = host(facts={**admin("b" * 64), FileText(MANIFEST): text})
    await step.apply(here)  # type: ignore[arg-type]
    assert here.written == {KEPT: new}
    assert here.done[-1] == f"mv -fT -- {FRESH} {MANIFEST}"


# --- what is left when it goes


@pytest.mark.parametrize(("looks", "status"), [(0, 0), (2, 0), (1, 1)])
def test_what_goes_is_waited_for_and_takes_its_address_with_it(tmp_path: Path, looks: int, status: int) -> None:
    bin_, done = tmp_path / "bin", tmp_path / "done"
    bin_.mkdir()
    (tmp_path / "left").write_text("x" * looks)
    goes = ":" if status else "sed -i 's/.//'"  # a pod that stays, however many looks a second has
    ctr = (
        'case "$*" in *containers*) echo one; echo two;; *) printf "TASK PID STATUS\\n"; '
        f"[ ! -s {tmp_path}/left ] || {{ {goes} {tmp_path}/left; echo 'two 7 RUNNING'; }};; esac"
    )
    ip = f'echo "$*" >> {done}; [ "$1" != -o ] || echo "2: eth0    inet {VIP}/32 scope global eth0"'
    for name, body in (("ctr", ctr), ("ip", ip), ("sleep", "exit 0")):
        (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_ / name).chmod(0o755)
    (folder := tmp_path / "kept").mkdir()
    (written := tmp_path / "pod.yaml").touch()
    env = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    words = (str(written), kube_vip.POD, VIP, "1" if status else "60", str(folder))
    ran = subprocess.run(("bash", "-c", kube_vip._GONE, "bash", *words), env=env, check=False, capture_output=True)
    assert (ran.returncode, written.exists()) == (status, False)
    assert folder.exists() is bool(status)  # what says that it is not over yet
    if status:
        assert (b"still runs 1 s after" in ran.stdout, done.exists()) == (True, False)
    else:
        assert done.read_text().splitlines() == [f"-o -4 addr show to {VIP}/32", f"addr del {VIP}/32 dev eth0"]


async def test_nothing_is_left_once_neither_the_manifest_nor_what_tells_of_it_is_there() -> None:
    info = FileInfo("a" * 64, "600", "root:root", 1)
    assert await KubeVipGone().check(KnownFacts({})) is None  # type: ignore[arg-type]
    for path in (MANIFEST, KEPT):
        assert await KubeVipGone().check(KnownFacts({FileState(path): info})) is not None  # type: ignore[arg-type]
    for texts in ({FileText(KEPT): text_of(by_kube_vip())}, {FileText(MANIFEST): text_of(by_kube_vip())}):
        await KubeVipGone().apply(here := KnownFacts(texts))  # type: ignore[arg-type]
        assert here.done[0].endswith(f"{MANIFEST} {kube_vip.POD} {VIP} {kube_vip.GONE_SECONDS} {kube_vip.FOLDER}")


def test_a_reset_takes_the_address_off_once_no_container_can_bring_it_back() -> None:
    run = Run(by_kube_vip(), "reset")
    run.seen.families["cp1"] = family_of("debian")

    async def still() -> None:
        """Forbid nothing."""

    kinds = [type(step) for step in reset_steps(run, "cp1", still)]
    assert kinds.index(ContainersGone) < kinds.index(KubeVipGone) < kinds.index(KubeletFolderEmpty)


# --- one way at a time


async def code_of(check: Any, here: KnownFacts) -> str:
    try:
        await check.check(here)
    except ShipwayError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("made", "other", "own"),
    [(by_kube_vip(), keepalived.CONFIG, KEPT), (with_vip(), KEPT, keepalived.CONFIG)],
)
async def test_the_other_way_is_taken_away_before_one_begins(made: Cluster, other: str, own: str) -> None:
    info = FileInfo("a" * 64, "600", "root:root", 1)
    for there, code in ((other, "SHW-843"), (own, "")):
        assert await code_of(VipOneWay(made), host(facts={FileState(there): info})) == code
        assert await code_of(VipOneWay(made, (Away({}), host(2, facts={FileState(there): info}))), host()) == code  # type: ignore[arg-type]


async def test_an_address_that_kube_vip_of_ours_holds_is_its_own() -> None:
    made = by_kube_vip()
    asked = {neighbour(VIP): said(ANSWERS)}
    kept = {OURS: text_of(made)}
    for here, peers, code in (
        (host(facts=asked), (), "SHW-840"),
        (host(facts={**asked, **kept}), (), ""),
        (host(facts=asked), (host(2, HELD, facts=kept),), ""),
        (host(facts=asked), (host(2, facts=kept),), "SHW-840"),  # told of it, and another one has it
    ):
        assert await code_of(VipFree(made, peers), here) == code  # type: ignore[arg-type]


async def test_while_some_are_told_of_another_address_nobody_waits_for_one_that_holds_it() -> None:
    made = by_kube_vip()
    for other, yes in ((made, False), (by_kube_vip(address="10.9.0.201"), True)):
        planes = (quiet(host(1)), quiet(Away({})), quiet(host(2, facts={OURS: text_of(other)})))
        assert await told_otherwise(made, planes) is yes  # type: ignore[arg-type]


async def test_what_keeps_the_address_from_being_held_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.steps.vip.held.PAUSE", 0.0)
    nobody = {kube_vip.LEASE: said("")}
    none, held, two = (quiet(one) for one in (host(1, facts=nobody), host(2, HELD), host(3, HELD)))
    for made, planes, words in (
        (by_kube_vip(), (none,), "crictl ps -a --name shipway-api-vip"),
        (with_vip(), (none,), "journalctl -u shipway-api-vip"),
        (by_kube_vip(), (held, two), "the Lease shipway-api-vip is one's"),
        (with_vip(), (held, two), "IP protocol 112"),
    ):
        drift = await VipHeld(made, planes).check(None)  # type: ignore[arg-type]
        assert drift is not None
        assert words in drift.want


@pytest.mark.parametrize(
    ("holder", "heard", "holds_it"),
    [
        (said("cp3"), ANSWERS, True),
        (said("cp3"), f"{VIP} dev eth0 FAILED", False),  # what it had went with it
        (said("cp2"), ANSWERS, False),  # the file names it, and it holds nothing: whoever answers is none of ours
        (said(""), ANSWERS, False),
        (said("cp3", status=1), ANSWERS, False),
    ],
)
async def test_one_that_the_file_does_not_name_any_more_may_hold_it_by_the_lease_until_it_is_removed(
    monkeypatch: pytest.MonkeyPatch, holder: Output, heard: str, *, holds_it: bool
) -> None:
    monkeypatch.setattr("shipway.steps.vip.held.PAUSE", 0.0)
    plane = quiet(host(facts={kube_vip.LEASE: holder, neighbour(VIP): said(heard)}))
    drift = await VipHeld(without(by_kube_vip(), "cp3"), (plane, quiet(Away({})))).check(None)  # type: ignore[arg-type]
    assert (drift is None) is holds_it


def test_each_way_has_its_own_steps_and_without_an_address_nothing_of_either_is_left() -> None:
    plain, made = cluster(), by_kube_vip()
    assert [type(step) for step in listed.steps(plain, plain.hosts[0], DEBIAN, ())] == [OwnGone, KubeVipGone]
    assert [type(step) for step in listed.steps(made, made.hosts[0], DEBIAN, ())] == [VipPod]


@pytest.mark.parametrize(
    ("more", "why"), [("by: kube-vip, router_id: 9", "is keepalived's"), ("image: a.example/b:v1", "is kube-vip's")]
)
def test_a_key_of_the_other_way_is_refused(more: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse_cluster(f"name: te\nhosts: [10.9.0.1]\nkubernetes: {{api_vip: {{address: {VIP}, {more}}}}}\n")


def test_preflight_asks_for_its_registry_on_control_planes_alone() -> None:
    made = by_kube_vip()
    asked = {one.name: " ".join(source.url for source in origins(made, one, DEBIAN)) for one in made.hosts}
    assert ("https://ghcr.io/v2/" in asked["cp1"], "https://ghcr.io/v2/" in asked["w1"]) == (True, False)
    assert "ghcr.io" not in " ".join(source.url for source in origins(with_vip(), made.hosts[0], DEBIAN))
