"""The CA of a cluster is replaced, twice killed on the way and once gone back from, beside a pod that holds a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lab.containers.kubernetes import chosen
from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.several_planes import ADMIN, bare_hosts, changes, command, drift, hold, holds, nodes

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
VERB, HOSTS, OLD = "rotate_ca", ("cp1", "w1"), "/root/old.conf"
CONFIRM = ("--confirm", "lab", "--beside-gpu-pods")
FOLDER, CA = "/etc/kubernetes/pki/shipway-ca", "/etc/kubernetes/pki/ca.crt"
TRUSTED = f"grep -c BEGIN {CA}"
# Who signed what 6443 shows, the kubelet's client certificate, and whom each kubeconfig trusts (how many).
SHOWN = "openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null | openssl x509 -noout -issuer"
CLIENT = "openssl x509 -noout -issuer -in /var/lib/kubelet/pki/kubelet-client-current.pem"
NAME = f"openssl x509 -noout -subject -in {CA}"
KEYS = (
    "find / -xdev -type f -newer /root/old.conf -not -path '/proc/*' -not -path '/etc/kubernetes/*' -size -4096k "
    '-exec grep -lF -- "$(sed -n 3p {key})" {{}} + 2>/dev/null; true'
)
TOLD = (  # how many CAs aggregated API servers and the scheduler know callers by
    f"kubectl --kubeconfig {ADMIN} -n kube-system get configmap extension-apiserver-authentication "
    "-o jsonpath='{.data.client-ca-file}' | grep -c BEGIN"
)
WORKS = "kubectl --request-timeout=10s --kubeconfig {file} {more} get nodes >/dev/null 2>&1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control plane and a worker in a lab of their own."""
    with bare_hosts(tmp_path_factory.mktemp("rotating"), 5, HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The cluster, and a copy of its administrator's kubeconfig as somebody keeps it."""
    ran = site.run(seconds=600)
    site.on("cp1", f"cp {ADMIN} {OLD}")
    return ran


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """The pod that holds a GPU; it has read the old CA, as every pod with a token."""
    assert made.code == 0, made.output
    return hold(site, "cp1")


def works(site: Site, file: str, more: str = "") -> bool:
    """Tell whether kubectl gets the nodes by a kubeconfig."""
    return site.holds("cp1", WORKS.format(file=file, more=more))


def drifted(ran: Ran) -> set[tuple[str, str]]:
    """Return host and step of what would be changed, or was withheld."""
    return {
        (stage["host"], row["step"])
        for stage in ran.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "drifted"
    }


def kill_when(site: Site, host: str, test: str, *words: str) -> None:
    """Start a rotation and SIGKILL it as soon as a shell test is true on a host."""
    line = (sys.executable, "-m", f"flows.{VERB}", str(site.folder / "cluster.yaml"), "--quiet", *CONFIRM, *words)
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    process = subprocess.Popen(line, cwd=ROOT, env=env, start_new_session=True)
    deadline = time.monotonic() + 420
    try:
        while not site.holds(host, test):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_plan_names_all_that_forbids_it_then_every_change_and_changes_nothing(site: Site, holder: str) -> None:
    refused = command(site, VERB, "--plan")
    assert (refused.code, {one["code"] for one in refused.report["errors"]}) == (1, {"SHW-789", "SHW-854"})
    assert command(site, "backup").code == 0
    before = {name: site.on(name, STATE) for name in HOSTS}
    foreseen = command(site, VERB, "--plan", "--beside-gpu-pods")
    assert (foreseen.code, foreseen.report["outcome"]) == (0, "planned"), foreseen.output
    assert any("default/holds-a-gpu" in said for said in foreseen.report["warnings"])
    assert {
        ("cp1", "the old and the new CA lie beside each other"),
        *((host, "the host trusts the CA that is wanted") for host in HOSTS),
        *((host, "/etc/kubernetes/kubelet.conf trusts the CA that is wanted") for host in HOSTS),
        ("cluster", "cluster-info holds the CA that is wanted"),
        ("cp1", "kubeadm's certificates are signed by the CA that is wanted"),
        ("cp1", "kube-apiserver uses its current certificates"),
        *((host, "the kubelet's client certificate is signed by the CA that is wanted") for host in HOSTS),
    } <= drifted(foreseen)
    assert {name: site.on(name, STATE) for name in HOSTS} == before
    assert holds(site, "cp1") == holder


def test_killed_while_trust_is_spread_it_goes_on_rests_beside_old_pods_and_goes_back(site: Site, holder: str) -> None:
    old = site.on("cp1", NAME)
    kill_when(site, "cp1", f"[ $({TRUSTED}) = 2 ]")
    rests = command(site, VERB, *CONFIRM)
    assert (rests.code, rests.report["errors"]) == (2, []), rests.output
    assert ("cluster", "pods of others have read the CA that is wanted") in drifted(rests)
    assert [site.on(host, TRUSTED).strip() for host in HOSTS] == ["2", "2"]
    assert site.on("cp1", SHOWN).partition("=")[2] == old.partition("=")[2]
    assert works(site, OLD)
    assert ["cluster-signing" in row["have"] for row in drift(site)["findings"]] == [True]  # told, and left
    back = command(site, VERB, *CONFIRM, "--back")
    print(f"back from trust in {back.seconds:.0f} s")
    assert (back.code, back.report["errors"]) == (0, []), back.output
    assert [site.on(host, TRUSTED).strip() for host in HOSTS] == ["1", "1"]
    assert site.on("cp1", TOLD).strip() == "1"
    assert (site.on("cp1", NAME), site.holds("cp1", f"[ -e {FOLDER} ]")) == (old, False)
    assert (drift(site)["findings"], drift(site)["errors"]) == ([], [])
    assert holds(site, "cp1") == holder


def test_killed_while_certificates_are_signed_it_goes_on_to_its_end(site: Site, holder: str) -> None:
    old = site.on("cp1", NAME).partition("=")[2]
    assert command(site, "backup").code == 0
    kill_when(site, "cp1", f"[ -e {FOLDER} ] && ! {SHOWN} | grep -qF '{old.strip()}'", "--despite-pods")
    new = site.on("cp1", f"openssl x509 -noout -subject -in {FOLDER}/new.crt").partition("=")[2]
    signed = command(site, VERB, *CONFIRM, "--despite-pods", "--until", "certificates")
    print(f"after a kill to the new certificates in {signed.seconds:.0f} s")
    assert (signed.code, signed.report["errors"]) == (0, []), signed.output
    assert site.on("cp1", SHOWN).partition("=")[2] == new
    assert [site.on(host, CLIENT).partition("=")[2] for host in HOSTS] == [new, new]
    assert works(site, ADMIN)
    assert works(site, OLD, "--insecure-skip-tls-verify")  # its certificate is taken still; it trusts the old CA alone
    if chosen().minor == 20:  # the lab has a newer patch of this one alone
        refused = command(site, "upgrade", "--plan", "--to", "1.20.15")
        assert "SHW-856" in {one["code"] for one in refused.report["errors"]}, refused.output
    kill_when(site, "cp1", f"[ $({TRUSTED}) = 1 ]", "--despite-pods")
    assert command(site, VERB, "--back", *CONFIRM).report["errors"][0]["code"] == "SHW-857"
    ended = command(site, VERB, *CONFIRM)
    print(f"after a kill in the last stage in {ended.seconds:.0f} s")
    assert (ended.code, ended.report["errors"]) == (0, []), ended.output
    assert [site.on(host, NAME).partition("=")[2] for host in HOSTS] == [new, new]
    assert site.on("cp1", TOLD).strip() == "1"
    assert (works(site, ADMIN), works(site, OLD), works(site, OLD, "--insecure-skip-tls-verify")) == (
        True,
        False,
        False,
    )
    assert site.on("cp1", "su ops -c 'kubectl get nodes --no-headers'").count(" Ready") == len(HOSTS)
    assert nodes(site, "cp1") == dict.fromkeys(HOSTS, True)
    assert holds(site, "cp1") == holder
    assert not site.holds("cp1", f"[ -e {FOLDER} ]")
    kept = site.on("cp1", "stat -c '%a %U' /etc/kubernetes/before-renewal-ca-*/*").splitlines()
    assert set(kept) == {"600 root"}
    assert site.on("cp1", KEYS.format(key="/etc/kubernetes/pki/ca.key")) == ""
    line = site.on("cp1", "sed -n 3p /etc/kubernetes/pki/ca.key").strip()
    places = [str(site.folder / "prefect"), str(site.folder / "controller"), *map(str, site.folder.glob("*.json"))]
    found = subprocess.run(("grep", "-rlF", "--", line, *places), check=False, capture_output=True, text=True)
    assert found.stdout == ""  # neither Prefect's database nor a log or report of this machine has it
    assert site.run().report["errors"] == []
    assert (drift(site)["findings"], drift(site)["errors"]) == ([], [])
    again = command(site, VERB, *CONFIRM)
    assert (again.code, changes(again)) == (0, [])
    assert site.kubectl("logs --tail=1 -n kube-system -l component=kube-scheduler") != ""
