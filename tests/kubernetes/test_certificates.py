"""Certificates are renewed where they end soon, loaded where they are not, and refused where kubeadm cannot sign."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shipway.converge import converge, look_at_all
from shipway.errors import Blocked, Permanent, Refused
from shipway.facts.certificates import NO_PROGRAM, CertificateAt, CertificateIn, CertificateInfo
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.facts.static_pods import PARTS, Running, StaticPodsRunning
from shipway.host.session import Command
from shipway.kubeadm.certificates import AUTHORITIES, KUBELET_CLIENT, LEAFS, doors_of, leafs_of
from shipway.kubeadm.writes import MANIFESTS, PKI
from shipway.ownership.evidence import AUTHORITY, BOOTSTRAP, CERTIFICATE, KUBECONFIGS, KUBELET_CONF
from shipway.script import Output
from shipway.stage import StageName
from shipway.step import Impact
from shipway.steps.kubernetes import etcd_members, kubelet_client, static_pods
from shipway.steps.kubernetes.etcd_members import MEMBERS, health
from shipway.steps.kubernetes.health import KUBELET_CONFIG
from shipway.steps.kubernetes.kubelet_client import (
    _POINT,
    KubeletClientValid,
    KubeletConfPoints,
    KubeletRotates,
    bootstrap_kubeconfig,
)
from shipway.steps.kubernetes.renewal import RENEW, CertificatesRenewed, ClockRight
from shipway.steps.kubernetes.static_pods import AWAY, RESTART, ManifestsBack, StaticPodLoaded, probe
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.maintain.pause import OWN_WORD
from shipway.survey.first_look import CLOCK
from tasks.certificates.stages import renewal_steps
from tasks.context import Run
from tasks.drift.parts import host_parts
from tasks.stages import control_plane
from tests.places.control_plane import ADDRESS, PORT, ControlPlane
from tests.places.facts import DEBIAN, KnownFacts, said
from tests.places.kube import cluster_of

DAY = 86400
NODE = "cp1"


def pods() -> list[StaticPodLoaded]:
    return [StaticPodLoaded(part, NODE, ADDRESS, PORT) for part in PARTS]


def test_every_leaf_has_a_reader_or_needs_none_and_every_door_a_leaf() -> None:
    names = {leaf.name for leaf in LEAFS}
    unread = {leaf.name for leaf in LEAFS if not leaf.read_by}
    assert unread == {"etcd/healthcheck-client", "admin.conf", "super-admin.conf"}
    assert {leaf.name for part in PARTS for leaf in leafs_of(part)} | unread == names
    assert {door.leaf for part in PARTS for door in doors_of(part, 1)} <= names
    assert {leaf.authority for leaf in LEAFS} == set(AUTHORITIES)


def test_openssl_is_heard_and_no_key_is_read() -> None:
    words = "changed=1700000000\nserial=0A1B\nnotAfter=Nov 24 08:03:27 2027 GMT\n"
    info = CertificateIn("/x").parse(Output(0, words, ""))
    assert info == CertificateInfo("0A1B", 1827043407.0, 1700000000)
    assert CertificateIn("/x").parse(Output(1, "", "stat: cannot statx '/x': No such file or directory")) is None
    assert CertificateIn("/x").parse(Output(1, "changed=5\n", "unable to load")) == CertificateInfo("", 0.0, 5)
    assert CertificateAt("fd00::1", 2379).words()[-1] == "[fd00::1]:2379"
    assert CertificateAt("10.0.0.1", 2379).parse(Output(1, "", "")) is None
    with pytest.raises(Blocked, match="no openssl"):
        CertificateIn("/x").parse(Output(127, "", "sh: openssl: command not found"))  # bash's words, not dash's
    without = subprocess.run(CertificateIn("/x").words(), env={"PATH": "/nowhere"}, executable="/bin/sh", check=False)
    assert without.returncode == NO_PROGRAM


def test_the_oldest_process_of_a_part_counts_and_foreign_lines_say_nothing() -> None:
    words = "now=1000\n40 etcd\n900 kube-apiserver\n3 kube-apiserver\nx etcd\n7 other\n"
    assert StaticPodsRunning().parse(Output(0, words, "")) == Running(1000, {"etcd": 960, "kube-apiserver": 100})
    assert StaticPodsRunning().parse(Output(1, "", "")) == Running(0, {})


async def test_what_ends_soon_is_renewed_and_what_lasts_is_left() -> None:
    fresh = ControlPlane(300)
    assert await CertificatesRenewed().check(fresh) is None
    soon = ControlPlane(300, apiserver=9.4)
    (result,) = await converge([CertificatesRenewed(before={})], soon, Impact.SERVICE)
    assert result.outcome == "changed"
    assert result.drift is not None
    assert result.drift.have == "apiserver in 9 days"
    assert result.drift.want.startswith("90 days and more; all are renewed, and etcd, kube-apiserver, ")
    assert [line.split(":")[0] for line in soon.done] == ["kubeadm-certs"]
    assert " certs renew all" in soon.done[0]
    again = await converge([CertificatesRenewed(before={})], soon, Impact.SERVICE)
    assert [one.outcome for one in again] == ["ok"]


async def test_a_plan_says_what_would_be_renewed_and_changes_nothing() -> None:
    host = ControlPlane(-3)
    results = await look_at_all([ManifestsBack(), ClockRight(), CertificatesRenewed(), *pods()], host)
    assert [one.outcome for one in results] == ["ok", "ok", "drifted", "ok", "ok", "ok", "ok"]
    assert "apiserver has expired" in str(results[2].drift)
    assert not host.done


# --- etcd's quorum, before a member of it is started anew


def with_members(host: ControlPlane, members: str, own: str = "+") -> ControlPlane:
    """Let a control plane's etcd know members that are healthy (+) or not (-); `own` is what it says of itself."""
    urls = {f"https://10.9.0.{number}:2379": sign == "+" for number, sign in enumerate(members, 11)}
    rows = [{"ID": url, "name": url, "clientURLs": [url]} for url in urls]
    host.facts[MEMBERS] = said(json.dumps({"members": rows}))
    host.facts |= {health(url): said(json.dumps({"health": well})) for url, well in urls.items()}
    host.facts[OWN_WORD] = said(json.dumps({"health": own == "+"}))
    host.facts[FileText(f"{MANIFESTS}/etcd.yaml")] = ""
    return host


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is not well have no time to become so."""
    monkeypatch.setattr(etcd_members, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(etcd_members, "EVERY_SECONDS", 0.0)


def renewing() -> list[Any]:
    run = Run(cluster_of(("te1", "te2")), "bootstrap")
    return [step for step in renewal_steps(run, "te1") if not isinstance(step, UserHasKubeconfig)]


@pytest.mark.usefixtures("no_wait")
async def test_no_etcd_is_started_anew_while_the_others_would_be_no_quorum() -> None:
    host = with_members(ControlPlane(5), "++-")
    looked = {result.id: result for result in await look_at_all(renewing(), host)}
    error = looked["EtcdMayStop"].error
    assert isinstance(error, Refused), "a plan says so, and a run is refused before it changes anything"
    assert (error.code, "1 of 3 members of etcd would be left" in error.message) == ("SHW-823", True)
    await converge(renewing(), host, Impact.SERVICE)
    assert not [line for line in host.done if line.startswith("restart-")]
    not_loaded = with_members(ControlPlane(300), "++-")
    not_loaded.set("etcd/peer", serial="NEW")
    await converge(renewing(), not_loaded, Impact.SERVICE)
    assert not not_loaded.done


@pytest.mark.usefixtures("no_wait")
async def test_a_member_that_is_lost_while_the_files_are_renewed_is_seen_right_before_etcd_is_stopped() -> None:
    host = with_members(ControlPlane(5), "+++")
    succeed = host.succeed

    async def lose(name: str, words: Any, **more: int) -> Output:
        done = await succeed(name, words, **more)
        with_members(host, "++-")
        return done

    host.succeed = lose  # type: ignore[method-assign]
    results = await converge(renewing(), host, Impact.SERVICE)
    assert [line.split(":")[0] for line in host.done] == ["kubeadm-certs"]
    assert [result.error.code for result in results if isinstance(result.error, Refused)] == ["SHW-823"]


@pytest.mark.usefixtures("no_wait")
async def test_etcd_is_started_anew_where_the_others_are_a_quorum_or_none_and_where_it_does_not_vote() -> None:
    for host in (
        with_members(ControlPlane(5), "+++"),
        with_members(ControlPlane(5), "+"),
        with_members(ControlPlane(5), "-+-", "-"),
    ):
        await converge(renewing(), host, Impact.SERVICE)
        assert [line.split(":")[0] for line in host.done][:2] == ["kubeadm-certs", "restart-etcd"]
    nothing_due = with_members(ControlPlane(300), "++-")
    assert {result.outcome for result in await look_at_all(renewing(), nothing_due)} == {"ok"}
    elsewhere = with_members(ControlPlane(5), "++-")
    elsewhere.facts[Listing(MANIFESTS)] = tuple(f"{part}.yaml" for part in PARTS[1:])
    looked = {result.id: result for result in await look_at_all(renewing(), elsewhere)}
    assert looked["EtcdMayStop"].outcome == "ok"


@pytest.mark.usefixtures("no_wait")
async def test_members_that_cannot_be_asked_before_the_files_are_new_refuse_nothing_yet() -> None:
    host = with_members(ControlPlane(-2), "+++")
    answers = host.facts.pop(MEMBERS)
    looked = {result.id: result for result in await look_at_all(renewing(), host)}
    assert (looked["EtcdMayStop"].outcome, type(looked["EtcdMayStop"].error)) == ("unknown", Blocked)
    await converge(renewing(), host, Impact.SERVICE)
    assert [line.split(":")[0] for line in host.done] == ["kubeadm-certs"], "it votes, and tells nothing of the others"
    host.facts[MEMBERS] = answers
    await converge(renewing(), host, Impact.SERVICE)
    assert host.done[1].startswith("restart-etcd")


async def test_all_are_renewed_once_where_that_is_asked_for() -> None:
    host, before = ControlPlane(300), dict[str, str]()
    step = CertificatesRenewed(everything=True, before=before)
    assert (await converge([step], host, Impact.SERVICE))[0].outcome == "changed"
    assert await CertificatesRenewed(everything=True, before=before).check(host) is None  # a second try of the stage


async def test_certificates_of_a_short_life_are_renewed_once_a_run() -> None:
    host = ControlPlane(20)

    async def short(name: str, words: Any, **_: int) -> Output:
        del name, words
        for number, leaf in enumerate(LEAFS):
            if CertificateIn(leaf.path) in host.facts:
                host.set(leaf.name, serial=f"B{number}", ends=time.time() + 30 * DAY)
        return Output(0, "", "")

    host.succeed = short  # type: ignore[method-assign]
    assert (await converge([CertificatesRenewed(before={})], host, Impact.SERVICE))[0].outcome == "changed"


async def test_an_older_kubeadm_is_asked_by_its_own_words() -> None:
    host = ControlPlane(5)
    host.facts[Says(("kubeadm", "certs", "renew", "--help"))] = said("unknown command", 1)
    await CertificatesRenewed().apply(host)
    assert host.done[0].endswith("kubeadm alpha certs renew all")


async def test_an_external_authority_is_refused_with_what_to_do() -> None:
    host = ControlPlane(5)
    host.facts[Listing(f"{PKI}/etcd")] = ("ca.crt",)
    with pytest.raises(Refused, match=r"etcd/ca\.key is not there") as caught:
        await CertificatesRenewed().check(host)
    assert caught.value.code == "SHW-741"
    assert "generate-csr" in caught.value.fix
    lasting = ControlPlane(300)
    lasting.facts[Listing(PKI)] = ("ca.crt", "front-proxy-ca.crt")
    assert await CertificatesRenewed().check(lasting) is None  # whoever signs them has done so


async def test_what_kubeadm_cannot_renew_is_refused_by_name() -> None:
    broken = ControlPlane(5)
    broken.set("apiserver", serial="", ends=0.0)
    del broken.facts[CertificateIn("/etc/kubernetes/scheduler.conf")]
    with pytest.raises(Refused, match=r"apiserver, scheduler\.conf cannot be read") as caught:
        await CertificatesRenewed().check(broken)
    assert caught.value.code == "SHW-742"
    assert "`kubeadm init phase certs apiserver`; `kubeadm init phase kubeconfig scheduler`" in caught.value.fix
    ended = ControlPlane(5)
    ended.facts[CertificateIn(f"{PKI}/etcd/ca.crt")] = CertificateInfo("CA", time.time() - DAY)
    with pytest.raises(Refused, match="the CA itself has expired") as caught:
        await CertificatesRenewed().check(ended)
    assert caught.value.code == "SHW-743"
    with pytest.raises(Blocked, match="no control plane"):
        await CertificatesRenewed().check(KnownFacts({}))


async def test_etcd_that_is_elsewhere_is_no_finding() -> None:
    host = ControlPlane(300)
    for leaf in LEAFS:
        if leaf.authority == "etcd/ca":
            del host.facts[CertificateIn(leaf.path)]
    host.facts[Listing(MANIFESTS)] = tuple(f"{part}.yaml" for part in PARTS if part != "etcd")
    host.facts[Listing(f"{PKI}/etcd")] = ()
    host.set("apiserver", ends=time.time() + DAY)
    assert str(await CertificatesRenewed().check(host)).startswith("have apiserver in 1 days")
    assert await pods()[0].check(host) is None


@pytest.mark.parametrize("apart", [400, -4000])
async def test_a_wrong_clock_signs_nothing(apart: float) -> None:
    host = ControlPlane()
    for little in (0, -200):
        host.facts[CLOCK] = said(f"{time.time() + little}")
        assert await ClockRight().check(host) is None
    host.facts[CLOCK] = said(f"{time.time() + apart}")
    with pytest.raises(Refused, match=r"\d+ s (ahead of|behind) this machine's") as caught:
        await ClockRight().check(host)
    assert caught.value.code == "SHW-747"


async def test_a_renewed_certificate_that_is_not_served_is_found_and_its_pod_alone_is_restarted() -> None:
    host = ControlPlane(300)
    host.set("etcd/peer", serial="NEW0123456789")
    looks = [await pod.check(host) for pod in pods()]
    assert [look is None for look in looks] == [False, True, True, True]
    assert looks[0] is not None
    assert looks[0].have == "2380 serves serial A5, the file has …23456789: renewed, not loaded"


async def test_a_part_that_began_before_its_certificates_changed_is_started_anew() -> None:
    host = ControlPlane(300)
    host.set("front-proxy-client", changed=2500)  # no port shows it
    host.set("scheduler.conf", changed=2001)  # in the second of its start, as kubeadm init writes it
    host.set("controller-manager.conf", changed=99999)  # dated into the future: it says nothing
    looks = [await pod.check(host) for pod in pods()]
    assert [look is None for look in looks] == [True, False, True, True]
    assert "started before front-proxy-client changed" in str(looks[1])


async def test_what_does_not_run_or_does_not_answer_is_started_anew() -> None:
    host = ControlPlane(300)
    host.facts[StaticPodsRunning()] = Running(5000, {"etcd": 2000, "kube-apiserver": 2000})
    host.facts[CertificateAt(ADDRESS, PORT)] = None
    looks = [await pod.check(host) for pod in pods()]
    assert [str(look.have) if look else "" for look in looks] == [
        "",
        "nothing answers on 6443",
        "does not run",
        "does not run",
    ]
    host.facts[Listing(MANIFESTS)] = ("etcd.yaml",)
    with pytest.raises(Blocked, match=r"no .*/kube-apiserver\.yaml"):
        await pods()[1].check(host)


async def test_a_manifest_that_a_broken_restart_left_away_comes_back_first() -> None:
    host = ControlPlane()
    assert await ManifestsBack().check(host) is None
    host.facts[Listing(AWAY)] = ("etcd.yaml", "kube-apiserver.yaml", "notes.txt")
    host.facts[Listing(MANIFESTS)] = ("kube-apiserver.yaml",)  # that one was written anew since
    drift = await ManifestsBack().check(host)
    assert str(drift) == f"have etcd.yaml moved to {AWAY} by a restart that broke off; want {MANIFESTS}"
    await ManifestsBack().apply(host)
    moves = [line for line in host.done if line.startswith("mv ")]
    assert moves == [f"mv -nT -- {AWAY}/etcd.yaml {MANIFESTS}/etcd.yaml"]
    assert host.done[0].startswith("settled restart-etcd restart-kube-apiserver")


def test_a_bootstrap_and_a_drift_repair_put_it_back_before_anything_else() -> None:
    cluster = cluster_of(("te1", "te2"))
    steps = control_plane.steps(cluster, cluster.host("te1"), DEBIAN)
    assert steps[0] == ManifestsBack()
    run = Run(cluster, "drift")
    (part,) = [part for part in host_parts(run, cluster.host("te1")) if part.stage == StageName.CONTROL_PLANE]
    assert part.steps[0] == ManifestsBack()
    assert ManifestsBack.impact <= part.most


# --- what the probe of a manifest asks


def manifest(host: str | None, port: Any, scheme: str, path: str, ports: list[dict[str, Any]] | None = None) -> str:
    get = {"host": host, "port": port, "scheme": scheme, "path": path}
    container = {"livenessProbe": {"httpGet": {k: v for k, v in get.items() if v is not None}}, "ports": ports or []}
    return yaml.safe_dump({"spec": {"containers": [container]}})


def test_readiness_is_what_the_manifests_own_probe_asks() -> None:
    assert probe(manifest("127.0.0.1", 2381, "HTTP", "/health"), "etcd") == "http://127.0.0.1:2381/health"
    named = manifest("fd00::1", "probe-port", "HTTPS", "/healthz", [{"name": "probe-port", "containerPort": 10259}])
    assert probe(named, "kube-scheduler") == "https://[fd00::1]:10259/healthz"
    assert probe(manifest(None, 10257, "HTTPS", "/healthz"), "x") == "https://127.0.0.1:10257/healthz"
    for nothing in ("", "- 1", "spec: {}", "spec: {containers: [{livenessProbe: {httpGet: {port: a, path: /}}}]}", "{"):
        assert probe(nothing, "kube-scheduler") == "https://127.0.0.1:10259/healthz"


# --- the script that restarts a static pod, run by a real shell beside stand-ins for ctr and sleep


class Restart:
    """A folder of manifests, and what ctr says."""

    def __init__(self, folder: Path) -> None:
        self.here, self.away, self.bin = folder / "manifests", folder / "away", folder / "bin"
        self.here.mkdir()
        self.bin.mkdir()
        (self.here / "etcd.yaml").write_text("kind: Pod\n")
        self.program("sleep", 'echo . >> "$0.count"')
        self.program("crictl", "true")
        # The old pod runs for three looks.
        looks = f"n=$(cat {folder}/looks 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/looks"
        listed = f'echo "$6" >>{folder}/labels; [ -e {folder}/gone ] || echo old'
        tasks = 'echo "TASK PID STATUS"; [ "$n" -lt 3 ] && echo "old 7 RUNNING"; echo "other 8 RUNNING"'
        self.program("ctr", f'if [ "$3" = tasks ]; then {looks}; {tasks}; else {listed}; fi')

    def program(self, name: str, text: str) -> None:
        """Put a program in front of the real one."""
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, *ready: str, gone: int = 60, seconds: int = 60) -> subprocess.Popen[str]:
        """Start a restart; `ready` is the command that tells it."""
        words = ("bash", "-c", RESTART, "bash", "etcd", "etcd-cp1", str(self.here), str(self.away), str(gone))
        return subprocess.Popen(
            (*words, str(seconds), *ready),
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *ready: str, **limits: int) -> tuple[int, str]:
        """Return how a restart ended, and what it said."""
        process = self.start(*ready, **limits)
        said, _ = process.communicate(timeout=20)
        return process.returncode, said

    @property
    def back(self) -> bool:
        """Whether the manifest is in its place again, as it was."""
        return (self.here / "etcd.yaml").read_text() == "kind: Pod\n" and not self.away.exists()


def test_a_restart_waits_for_the_old_pod_and_for_the_new_one(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    place.program("ready", f'[ -e {place.here}/etcd.yaml ] && [ -e "$0.once" ] || {{ touch "$0.once"; exit 1; }}')
    code, words = place.run("ready")
    assert code == 0, words
    assert "etcd-cp1 has ended" in words
    assert "etcd-cp1 is ready" in words
    assert place.back
    assert (place.bin / "sleep.count").read_text().count(".") == 4


CRICTL = """
echo "$*" >>$0.asked
[ ! -e FOLDER/manifests/etcd.yaml ] || echo late >>$0.asked
if [ -e $0.tried ]; then touch FOLDER/gone; else touch $0.tried; exit 1; fi
"""


def test_what_has_ended_is_removed_before_the_manifest_comes_back_for_the_kubelet_waits_by_it(tmp_path: Path) -> None:
    """Seven restarts of an API server within minutes: it came back after 300 s, by the kubelet's own back-off."""
    place = Restart(tmp_path)
    place.program("crictl", CRICTL.replace("FOLDER", str(tmp_path)))
    code, words = place.run("true")
    assert code == 0, words
    assert place.back
    asked = (place.bin / "crictl.asked").read_text().splitlines()
    assert asked == ["--runtime-endpoint unix:///run/containerd/containerd.sock rm old"] * 2
    labels = {"io.kubernetes.pod.name": "etcd-cp1", "io.kubernetes.pod.namespace": "kube-system"}
    wanted = [f'labels."{key}"=="{value}"' for key, value in {**labels, "io.cri-containerd.kind": "container"}.items()]
    assert (tmp_path / "labels").read_text().splitlines()[-3:] == [",".join(wanted)] * 3


def test_a_crictl_that_does_not_answer_keeps_no_restart(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    place.program("crictl", "exit 1")
    assert place.run("true")[0] == 0
    assert place.back


def test_without_crictl_the_kubelets_own_wait_is_waited_for(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    (place.bin / "crictl").unlink()
    place.program("ready", f'[ "$(date +%s)" -ge "$(cat {tmp_path}/at)" ]')
    (tmp_path / "at").write_text(str(int(time.time()) + 3))
    assert place.run("ready", seconds=0)[0] == 0
    place.program("crictl", "true")
    (tmp_path / "at").write_text(str(int(time.time()) + 3))
    assert place.run("ready", seconds=0)[0] == static_pods.UNREADY


def test_a_pod_that_does_not_end_has_its_manifest_back_and_nothing_is_waited_for(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    place.program("ctr", 'if [ "$3" = tasks ]; then echo "old 7 RUNNING"; else echo old; fi')
    code, words = place.run("false", gone=0)
    assert (code, "still runs 0 s after" in words) == (static_pods.STAYS, True)
    assert (place.here / "etcd.yaml").exists()
    blind = "exit 1"  # a containerd that does not answer is no proof that the pod has ended
    place.program("ctr", blind)
    assert place.run("true", gone=0)[0] == static_pods.STAYS


def test_a_pod_that_does_not_come_up_is_told_with_its_last_words(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    place.program("ready", "echo connection refused; exit 7")
    code, words = place.run("ready", seconds=0)
    assert code == static_pods.UNREADY
    assert "connection refused" in words
    assert place.back


def test_a_restart_that_is_ended_puts_the_manifest_back_and_a_killed_one_leaves_it_to_be_found(tmp_path: Path) -> None:
    place = Restart(tmp_path)
    place.program("ctr", f'touch {tmp_path}/asked; if [ "$3" = tasks ]; then echo "old 7 RUNNING"; else echo old; fi')
    for number, came_back in ((signal.SIGTERM, True), (signal.SIGKILL, False)):
        (tmp_path / "asked").unlink(missing_ok=True)
        process = place.start("true")
        while not (tmp_path / "asked").exists():
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=20)
        assert (place.here / "etcd.yaml").exists() is came_back
    assert (place.away / "etcd.yaml").exists()
    assert place.away.stat().st_mode & 0o777 == 0o700
    place.program("ctr", "true")
    assert place.run("true")[0] == 0  # the next restart takes up where it was left
    assert place.back


def test_the_old_certificates_are_kept_beside_for_root_alone_and_whole_or_not_at_all(tmp_path: Path) -> None:
    etc, keep = tmp_path / "etc", tmp_path / "etc" / "before-renewal-x"
    (etc / "pki" / "etcd").mkdir(parents=True)
    for name in ("pki/ca.crt", "pki/etcd/server.crt", "admin.conf"):
        (etc / name).write_text(name)
        (etc / name).chmod(0o644)
    words = ("bash", "-c", RENEW, "bash", str(etc), str(keep))
    assert subprocess.run((*words, "sh", "-c", "exit 9"), check=False).returncode == 9
    kept = {str(path.relative_to(keep)): path for path in keep.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in kept.items()} == {
        "pki/ca.crt": "pki/ca.crt",
        "pki/etcd/server.crt": "pki/etcd/server.crt",
        "admin.conf": "admin.conf",
    }
    assert {path.stat().st_mode & 0o777 for path in kept.values()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (keep, keep / "pki", keep / "pki" / "etcd")} == {0o700}
    (etc / "pki").rename(etc / "gone")
    other = etc / "before-renewal-y"
    assert subprocess.run((*words[:-1], str(other), "true"), check=False, stderr=subprocess.DEVNULL).returncode
    assert not other.exists()


# --- the kubelet


def kubelet(client: CertificateInfo | None, inside: CertificateInfo | None = None, config: str = "") -> KnownFacts:
    text = config or "kind: KubeletConfiguration\nrotateCertificates: true\n"
    facts: dict[Fact[Any], Any] = {FileText(KUBELET_CONFIG): text}
    facts |= {CertificateIn(KUBELET_CLIENT): client, CertificateIn(KUBELET_CONF): inside or CertificateInfo("", 0.0)}
    return KnownFacts(facts)


VALID, ENDED = CertificateInfo("A", time.time() + 99 * DAY), CertificateInfo("B", time.time() - 40 * DAY)


async def test_a_kubelet_that_does_not_renew_its_certificate_is_found() -> None:
    assert await KubeletRotates().check(kubelet(VALID)) is None
    with pytest.raises(Permanent) as caught:
        await KubeletRotates().check(kubelet(VALID, config="kind: KubeletConfiguration\nrotateCertificates: false\n"))
    assert caught.value.code == "SHW-750"


async def test_an_expired_kubelet_of_an_unknown_cluster_is_refused_and_a_lost_one_is_the_bootstraps() -> None:
    step = KubeletClientValid("w1", KnownFacts({}))  # type: ignore[arg-type] - only reads
    assert await step.check(kubelet(VALID)) is None  # type: ignore[arg-type]
    with pytest.raises(Refused, match="cannot be shown that it is the node w1") as caught:
        await step.check(kubelet(ENDED))  # type: ignore[arg-type]
    assert caught.value.code == "SHW-751"
    assert await step.check(kubelet(VALID, ENDED)) is None  # type: ignore[arg-type] - a copy that ended cuts nobody off
    for lost in (None, CertificateInfo("", 0.0, 5)):  # the file is gone, or holds none
        with pytest.raises(Blocked):
            await step.check(kubelet(lost))  # type: ignore[arg-type]


def _certificate(name: str) -> str:
    """Return a certificate, signed by itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(own, own, key.public_key(), 1, datetime(2026, 1, 1), datetime(2036, 1, 1))  # noqa: DTZ001
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class CutOff(KnownFacts):
    """A node whose kubelet's certificate has ended; a restart lets it ask for a new one, where it has what it needs."""

    def __init__(self, authority: str, *, asks: bool = True) -> None:
        super().__init__({FileText(AUTHORITY): authority, CertificateIn(KUBELET_CLIENT): ENDED})
        self.facts[CERTIFICATE] = said(_certificate("system:node:w1"))
        self.facts[KUBECONFIGS] = said(f"{KUBELET_CONF}:    server: https://cp:6443\n")
        self.asks, self.modes = asks, dict[str, str]()

    async def do(self, *commands: Command) -> list[Output]:
        """Let the kubelet ask."""
        if self.asks and any("restart" in command.words for command in commands) and BOOTSTRAP in self.written:
            self.facts[CertificateIn(KUBELET_CLIENT)] = VALID
        return await super().do(*commands)

    async def write(self, path: str, content: bytes, **how: str) -> None:
        """Keep the mode as well."""
        self.modes[path] = how.get("mode", "644")
        await super().write(path, content, **how)


class Tokens(KnownFacts):
    """A control plane that makes tokens."""

    async def do(self, *commands: Command) -> list[Output]:
        """Make one, or delete it."""
        await super().do(*commands)
        return [said("abcdef.0123456789abcdef\n") for _ in commands]


async def test_a_cut_off_kubelet_asks_by_a_token_that_is_gone_afterwards() -> None:
    authority = _certificate("kubernetes")
    host, control = CutOff(authority), Tokens({FileText(AUTHORITY): authority})
    step = KubeletClientValid("w1", control)  # type: ignore[arg-type] - doubles of hosts
    (result,) = await converge([step], host, Impact.SERVICE)  # type: ignore[list-item]
    assert (result.outcome, result.error) == ("changed", None)
    assert "40 days ago" in str(result.drift)
    config = yaml.safe_load(host.written[BOOTSTRAP])
    assert (config["clusters"][0]["cluster"]["server"], host.modes[BOOTSTRAP]) == ("https://cp:6443", "600")
    assert host.done[-1] == f"rm -f {BOOTSTRAP}"
    assert control.done[0].endswith("--description join of w1")
    assert control.done[-1].endswith(" abcdef")  # the public half alone
    assert "0123456789abcdef" not in " ".join([*host.done, *control.done])


async def test_a_kubelet_that_gets_none_leaves_no_token_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet_client, "ASK_SECONDS", 0.01)
    authority = _certificate("kubernetes")
    host, control = CutOff(authority, asks=False), Tokens({FileText(AUTHORITY): authority})
    step = KubeletClientValid("w1", control)  # type: ignore[arg-type]
    (result,) = await converge([step], host, Impact.SERVICE)  # type: ignore[list-item]
    assert (result.outcome, host.done[-1], len(control.done)) == ("failed", f"rm -f {BOOTSTRAP}", 2)


async def test_a_host_of_another_cluster_or_name_is_given_no_token() -> None:
    authority = _certificate("kubernetes")
    for host, node in ((CutOff(_certificate("other")), "w1"), (CutOff(authority), "w2")):
        control = Tokens({FileText(AUTHORITY): authority})
        step = KubeletClientValid(node, control)  # type: ignore[arg-type]
        (result,) = await converge([step], host, Impact.SERVICE)  # type: ignore[list-item]
        assert result.error is not None
        assert (result.error.code, host.written, control.done) == ("SHW-751", {}, [])


async def test_a_kubelet_conf_with_its_own_certificate_is_pointed_to_the_one_that_is_renewed(tmp_path: Path) -> None:
    assert await KubeletConfPoints().check(kubelet(VALID)) is None
    assert await KubeletConfPoints().check(kubelet(VALID, VALID)) is not None
    assert await KubeletConfPoints().check(kubelet(ENDED, VALID)) is None  # it is all that the kubelet has
    conf = tmp_path / "kubelet.conf"
    user = {"client-certificate-data": "QUJD", "client-key-data": "REVG"}
    conf.write_text(yaml.safe_dump({"kind": "Config", "users": [{"name": "u", "user": user}]}))
    conf.chmod(0o600)
    words = ("sh", "-c", _POINT, "sh", str(conf), KUBELET_CLIENT)
    subprocess.run(words, check=True)  # noqa: ASYNC221 - nothing runs beside it
    (entry,) = yaml.safe_load(conf.read_text())["users"]
    assert entry["user"] == {"client-certificate": KUBELET_CLIENT, "client-key": KUBELET_CLIENT}
    assert conf.stat().st_mode & 0o777 == 0o600


def test_the_bootstrap_kubeconfig_is_one_that_a_kubelet_reads() -> None:
    config = yaml.safe_load(bootstrap_kubeconfig("https://cp:6443", "CA", "abcdef.0123456789abcdef"))
    (cluster,), (user,), (context,) = config["clusters"], config["users"], config["contexts"]
    assert config["current-context"] == context["name"]
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    assert cluster["cluster"] == {"certificate-authority-data": "Q0E=", "server": "https://cp:6443"}
