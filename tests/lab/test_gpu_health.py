"""Sick GPUs on real hosts: every row told with its answer, quarantine when asked, never too much of it, the way back.

What the driver and the kernel say of a sick GPU is SIMULATED: a healthy H200's recorded report with other words in
rows, and a `dmesg` that prints a file. Node, taints, pods, the plugin's DaemonSet and the proof are real programs'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from lab.containers.images_part import SAMPLE
from lab.gpu_report import change_rows, slot_of
from shipway.gpu.health.model import ADVICE, Answer
from shipway.gpu.health.quarantine import NOTE, TAINT
from tasks.findings import Finding
from tests.lab.conftest import Site
from tests.lab.drifting import passed

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
REPORTS = "/var/lib/labgpu"
DMESG = "/usr/local/sbin/dmesg"  # first in root's PATH: a host's own reads the log of the machine that all labs share
SOUND, KEPT, OPENED = (
    "each GPU is sound",
    "no new pod comes to a node with an unfit GPU",
    "a node that is kept from pods has an unfit GPU",
)


@dataclass(frozen=True)
class Sick:
    """What a GPU's report (`Section/Row`), its links, or the kernel's log say, and what is to come of it."""

    says: str
    answer: Answer
    rows: tuple[tuple[str, str], ...] = ()
    log: str = ""
    links: int = 0  # inactive ones


def xid(number: int, answer: Answer, said: str) -> Sick:
    """Return what the kernel says of an Xid; `SLOT` becomes the GPU's, `NOW` seconds since the boot."""
    line = f"[NOW] NVRM: Xid (PCI:SLOT): {number}, pid='<unknown>', name=<unknown>, {said}"
    return Sick(f"Xid {number}", answer, log=line)


BUSY = ("Utilization/GPU", "97 %")
SRAM = "SRAM Uncorrectable Parity"
ROWS = (
    Sick("GPU Reset", "reset", (("GPU Recovery Action", "GPU Reset"),)),
    Sick("Node Reboot", "restart", (("GPU Recovery Action", "Node Reboot"),)),
    Sick("Pending", "reset", (("Remapped Rows/Pending", "Yes"),)),
    Sick("Remapping Failure Occurred", "replace", (("Remapped Rows/Remapping Failure Occurred", "Yes"),)),
    Sick("600 for uncorrectable errors", "replace", (("Remapped Rows/Uncorrectable Error", "600"),)),
    Sick("SRAM Threshold Exceeded", "replace", (("ECC Errors/Aggregate/SRAM Threshold Exceeded", "Yes"),)),
    Sick("2 uncorrectable errors of its SRAM since", "reset", ((f"ECC Errors/Volatile/{SRAM}", "2"),)),
    Sick("9 uncorrectable errors of its SRAM in", "replace", ((f"ECC Errors/Aggregate/{SRAM}", "9"),)),
    Sick("3 uncorrectable errors of its memory", "look closer", (("ECC Errors/Volatile/DRAM Uncorrectable", "3"),)),
    Sick("HW Thermal Slowdown", "look closer", (("Clocks Event Reasons/HW Thermal Slowdown", "Active"),)),
    Sick("HW Power Brake Slowdown", "look closer", (("Clocks Event Reasons/HW Power Brake Slowdown", "Active"),)),
    Sick("0 C left", "look closer", (("Temperature/GPU T.Limit Temp", "0 C"),)),
    Sick("8x of 16x under load", "look closer", (BUSY, ("PCI/GPU Link Info/Link Width/Current", "8x"))),
    Sick("the fabric's state is In Progress", "reset", (("Fabric/State", "In Progress"),)),
    Sick("17 links are active, 18", "look closer", links=1),
    xid(79, "restart", "GPU has fallen off the bus."),
    xid(95, "reset", "Uncontained ECC error"),
    xid(119, "reset", "Timeout after 6s of waiting for RPC response from GPU0 GSP!"),
    xid(74, "look closer", "NVLink: fatal error detected on link 3"),
    xid(999, "look closer", "a word that no catalogue has"),
)
GPUS = [("w1", 0), ("w1", 1), ("w2", 0), ("w2", 1)]
BATCHES = [ROWS[at : at + len(GPUS)] for at in range(0, len(ROWS), len(GPUS))]


@pytest.fixture(scope="module")
def fleet(drifting: Site) -> Iterator[Site]:
    """Yield the cluster; its GPUs are well before and afterwards."""
    for host in ("w1", "w2"):
        drifting.on(host, f"mkdir -p /root/labgpu; cp {REPORTS}/report-* /root/labgpu/")
        drifting.on(host, f"printf '#!/bin/sh\\ncat {REPORTS}/kernel-log\\n' >{DMESG}; chmod 755 {DMESG}")
    heal(drifting, "w1", "w2")
    yield drifting
    heal(drifting, "w1", "w2")
    for host in ("w1", "w2"):
        drifting.on(host, f"rm -r {DMESG} {REPORTS}/kernel-log /root/labgpu")
    drifting.cluster_file()


def heal(site: Site, *hosts: str) -> None:
    """Let all GPUs of hosts be well again, and the kernel's log empty."""
    for host in hosts:
        site.on(host, f"cp /root/labgpu/report-* {REPORTS}/; rm -f {REPORTS}/links; : >{REPORTS}/kernel-log")


def uuid_of(site: Site, host: str, index: int) -> str:
    """Return the identity of a host's GPU."""
    return site.lab.plan.host(host).gpu_ids()[index]


def harm(site: Site, host: str, index: int, sick: Sick) -> str:
    """Let a GPU be sick; return its UUID."""
    uuid = uuid_of(site, host, index)
    file = f"{REPORTS}/report-{uuid}"
    if sick.rows:
        text = change_rows(site.on(host, f"cat {file}"), dict(sick.rows))
        site.lab.exec(host, "sh", "-c", f"cat >{file}", give=text)
    if sick.log:
        slot = slot_of(index).removeprefix("0000").removesuffix(".0").lower()
        now = site.on(host, "cut -d' ' -f1 /proc/uptime").strip()  # what was said before the last proof counts no more
        line = sick.log.replace("SLOT", slot).replace("NOW", f"{now}0000")
        site.lab.exec(host, "sh", "-c", f"cat >>{REPORTS}/kernel-log", give=line + "\n")
    if sick.links:
        lines = []
        for at, one in enumerate(site.lab.plan.host(host).gpu_ids()):
            down = sick.links if one == uuid else 0
            lines += [
                f"GPU {at}: SIMULATED (UUID: {one})",
                *(f"\t Link {link}: 26.562 GB/s" for link in range(down, 18)),
            ]
            lines += [f"\t Link {link}: <inactive>" for link in range(down)]
        site.lab.exec(host, "sh", "-c", f"cat >{REPORTS}/links", give="\n".join(lines) + "\n")
    return uuid


def node(site: Site, name: str) -> Mapping[str, Any]:
    """Return a Node as the API has it."""
    found: dict[str, Any] = json.loads(site.kubectl(f"get node {name} -o json"))
    return found


def taints(site: Site, name: str) -> list[tuple[str, str]]:
    """Return a node's taints, without those of Kubernetes."""
    found = node(site, name)["spec"].get("taints") or []
    return [(one["key"], one.get("value", "")) for one in found if "kubernetes.io" not in one["key"]]


def sound(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    """Return by host what was told of sick GPUs."""
    return {finding.host: finding for finding in findings if finding.step == SOUND}


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: "; ".join(one.says for one in batch))
def test_each_row_is_found_in_the_next_pass_with_its_answer(fleet: Site, batch: tuple[Sick, ...]) -> None:
    where = list(zip(GPUS, batch, strict=False))
    try:
        named = [(host, harm(fleet, host, index, sick), sick) for (host, index), sick in where]
        report = passed(fleet, "none")
    finally:
        heal(fleet, "w1", "w2")
    told = sound(report.findings)
    for host, uuid, sick in named:
        assert host in told, (sick, report.findings)
        assert sick.says in told[host].have, told[host]
        assert uuid in told[host].have, told[host]
        assert ADVICE[sick.answer] in told[host].want, told[host]
    assert set(told) == {host for host, _, _ in named}
    assert all(not taints(fleet, host) for host in ("w1", "w2")), "nobody asked for a quarantine"


def test_what_is_the_applications_is_nothing(fleet: Site) -> None:
    try:
        harm(fleet, "w1", 0, xid(31, "application", "MMU Fault"))
        harm(fleet, "w2", 1, xid(13, "application", "Graphics Exception"))
        assert passed(fleet, "none").findings == ()
    finally:
        heal(fleet, "w1", "w2")


def test_a_sick_node_is_kept_from_pods_when_asked_one_of_two_at_most_and_comes_back_by_a_proof(fleet: Site) -> None:
    """The whole way: kept away beside a running pod, the breaker, the pod in the way of a proof, the proof, open."""
    # No image here measures a GPU: a node opens by the sample then, which is a SIMULATED one.
    gpu = {
        "compute": "required",
        "verify_image": f"nvcr.io/{SAMPLE}",
        "figures": {"image": "docker.io/library/busybox:1"},
    }
    fleet.cluster_file(repair={"quarantine": True}, gpu=gpu)
    fleet.kubectl("taint node w1 site.example/rack=7:PreferNoSchedule")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trains"},
        "spec": {
            "runtimeClassName": "nvidia",
            "nodeName": "w1",
            "containers": [
                {
                    "name": "c",
                    "image": "docker.io/library/busybox:1",
                    "command": ["sleep", "86400"],
                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                }
            ],
        },
    }
    fleet.lab.exec(
        "cp1", "sh", "-c", "kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -", give=json.dumps(pod)
    )
    fleet.kubectl("wait --for=condition=Ready pod/trains --timeout=90s")
    container = fleet.kubectl("get pod trains -o jsonpath={.status.containerStatuses[0].containerID}")
    try:
        uuid = harm(fleet, "w1", 1, ROWS[2])
        report = passed(fleet, "files")
        (told,) = [finding for finding in report.findings if (finding.host, finding.step) == ("w1", OPENED)]
        assert told.have.startswith("kept from pods since "), "it is told of from the first pass on"
        assert "Remapped Rows: Pending" in told.have, told
        assert taints(fleet, "w1") == [("site.example/rack", "7"), (TAINT, "reset")]
        note = json.loads(node(fleet, "w1")["metadata"]["annotations"][NOTE])
        assert note["gpus"] == [uuid]
        (evidence,) = (fleet.folder / "controller").glob(f"*/gpu-evidence/*{note['evidence']}*")
        assert uuid in evidence.read_text()
        assert evidence.stat().st_mode & 0o777 == 0o600
        assert fleet.kubectl("get pod trains -o jsonpath={.status.phase}") == "Running"

        harm(fleet, "w2", 0, ROWS[3])  # the second of two GPU nodes
        report = passed(fleet, "files")
        (refused,) = [finding for finding in report.findings if (finding.host, finding.step) == ("w2", KEPT)]
        assert refused.action == "failed"
        assert "w1 of 2 GPU nodes are kept from pods already" in refused.why
        assert not taints(fleet, "w2")
        heal(fleet, "w2")

        heal(fleet, "w1")
        report = passed(fleet, "service")
        (waits,) = [finding for finding in report.findings if (finding.host, finding.step) == ("w1", OPENED)]
        assert "pods hold 1 of its 2 GPUs" in waits.why, waits
        assert (TAINT, "reset") in taints(fleet, "w1")
        assert fleet.kubectl("get pod trains -o jsonpath={.status.containerStatuses[0].containerID}") == container

        fleet.kubectl("delete pod trains --grace-period=0 --force --wait=true")
        report = passed(fleet, "service")
        (opened,) = [finding for finding in report.findings if finding.step == OPENED]
        assert (opened.host, opened.action) == ("w1", "repaired"), report.findings
        assert taints(fleet, "w1") == [("site.example/rack", "7")], "the site's own stays"
        assert NOTE not in node(fleet, "w1")["metadata"]["annotations"]
        fleet.kubectl("taint node w1 site.example/rack-")  # it is told of, as every taint that the file does not have
        assert passed(fleet, "none").findings == ()
    finally:
        heal(fleet, "w1", "w2")
        fleet.kubectl("delete pod trains --ignore-not-found --grace-period=0 --force")
        if any(key == "site.example/rack" for key, _ in taints(fleet, "w1")):
            fleet.kubectl("taint node w1 site.example/rack-")
