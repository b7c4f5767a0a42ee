"""The CAs of the front proxy and of etcd are replaced on three control planes: killed on the way, gone back, ended.

An aggregated API server of the test's own, on the worker, asks callers for a certificate of the front proxy's CA that
it has read once, when it started. A GPU pod runs in one container through all of it, and no kubelet is restarted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.several_planes import (
    ADMIN,
    MOST_SECONDS,
    PLANES,
    asked,
    bare_hosts,
    changes,
    command,
    drift,
    etcds_watched,
    hold,
    holds,
    members,
    nodes,
    together,
)
from tests.lab.test_certificates import PIDS

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
VERB, NAMES, WORKER = "rotate_ca", (*PLANES, "w1"), "w1"
PKI = "/etc/kubernetes/pki"
PROXY, PROXY_FOLDER = f"{PKI}/front-proxy-ca.crt", f"{PKI}/shipway-front-proxy-ca"
ETCD, ETCD_FOLDER = f"{PKI}/etcd/ca.crt", f"{PKI}/shipway-etcd-ca"
OLD = "/root/old-etcd"
TOLD = (
    "get configmap extension-apiserver-authentication -n kube-system "
    "-o jsonpath='{.data.requestheader-client-ca-file}' | grep -c BEGIN"
)
GROUP = "lab.shipway.test"
AVAILABLE = f"get apiservice v1.{GROUP} -o jsonpath='{{.status.conditions[?(@.type==\"Available\")].status}}'"
# $1 the CA that it believes, once: it answers whoever shows a certificate of it, and nobody else.
SERVER = f"""
import http.server, json, ssl
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        own = {{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "{GROUP}/v1", "resources": []}}
        body = json.dumps(own).encode()
        self.send_response(200 if self.path.startswith("/apis/{GROUP}/v1") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/lab-server.crt", "/root/lab-server.key")
context.load_verify_locations("/root/lab-callers.crt")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("", 8443), Answers)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: lab-server, namespace: default}
spec: {ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: lab-server, namespace: default}
subsets: [{addresses: [{ip: ADDRESS}], ports: [{port: 8443}]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.GROUP}
spec:
  group: GROUP
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 15
  insecureSkipTLSVerify: true
  service: {name: lab-server, namespace: default}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three control planes and a worker in a lab of their own."""
    with bare_hosts(tmp_path_factory.mktemp("others"), 10, NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def holder(site: Site) -> str:
    """The cluster, with a pod that holds a GPU."""
    ran = site.run(seconds=1200)
    assert ran.code == 0, ran.output
    return hold(site, "cp1")


def kubectl(site: Site, words: str, host: str = "cp1") -> str:
    """Return what kubectl prints by a control plane's own kubeconfig."""
    return site.on(host, f"kubectl --kubeconfig {ADMIN} {words} || true").strip()


def count(site: Site, path: str) -> list[str]:
    """Return how many CAs a file holds on each control plane."""
    return [site.on(host, f"grep -c BEGIN {path}").strip() for host in PLANES]


def issuer(site: Site, host: str, path: str) -> str:
    """Return who signed a certificate in a file."""
    return site.on(host, f"openssl x509 -noout -issuer -in {path}").partition("=")[2].strip()


def shown_by(site: Site, host: str, port: int) -> str:
    """Return who signed what a port of a control plane shows."""
    address = site.lab.plan.host(host).address
    words = f"openssl s_client -connect {address}:{port} </dev/null 2>/dev/null | openssl x509 -noout -issuer"
    return site.on(host, words).partition("=")[2].strip()


def name(site: Site, path: str) -> str:
    """Return the name of the first CA in a file of the first control plane."""
    return site.on("cp1", f"openssl x509 -noout -subject -in {path}").partition("=")[2].strip()


def pids(site: Site) -> dict[str, str]:
    """Return the processes of every kubelet and containerd."""
    return {host: site.on(host, PIDS) for host in NAMES}


def rotate(site: Site, which: str, *words: str) -> Ran:
    """Rotate one of them."""
    ran = command(site, VERB, "--of", which, "--confirm", "lab", *words)
    print(f"{which} {' '.join(words)}: {ran.seconds:.0f} s")
    return ran


def kill_when(site: Site, host: str, test: str, which: str, *words: str) -> None:
    """Start a rotation and SIGKILL it as soon as a shell test is true on a host."""
    line = (sys.executable, "-m", f"flows.{VERB}", str(site.folder / "cluster.yaml"), "--quiet", "--of", which)
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    process = subprocess.Popen((*line, "--confirm", "lab", *words), cwd=ROOT, env=env, start_new_session=True)
    deadline = time.monotonic() + 900
    try:
        while not site.holds(host, test):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def serve(site: Site, believes: str) -> None:
    """Start the aggregated API server on the worker, anew, with the CAs (PEM) that it believes from now on."""
    site.lab.exec(WORKER, "sh", "-c", "cat > /root/lab-callers.crt", give=f"{believes}\n")
    site.lab.exec(WORKER, "sh", "-c", "cat > /root/lab-server.py", give=SERVER)
    site.on(
        WORKER,
        "systemctl stop lab-server 2>/dev/null; [ -f /root/lab-server.key ] || openssl req -x509 -newkey rsa:2048 "
        "-nodes -subj /CN=lab-server -days 9 -keyout /root/lab-server.key -out /root/lab-server.crt 2>/dev/null; "
        "systemd-run --quiet --collect --unit=lab-server python3 /root/lab-server.py",
    )


def wait_available(site: Site) -> None:
    """Wait until the API servers reach it."""
    deadline = time.monotonic() + 120
    while kubectl(site, AVAILABLE) != "True":
        assert time.monotonic() < deadline, kubectl(site, f"get apiservice v1.{GROUP} -o yaml")
        time.sleep(1)


def codes(ran: Ran) -> set[str]:
    """Return the codes of a run's errors."""
    return {one["code"] for one in ran.report["errors"]}


def test_plans_name_what_forbids_it_and_change_nothing(site: Site, holder: str) -> None:
    assert codes(command(site, VERB, "--of", "front-proxy", "--plan")) == {"SHW-789"}
    assert command(site, "backup").code == 0
    before = {host: site.on(host, STATE) for host in NAMES}
    for which, certificate in (("front-proxy", "front-proxy-client"), ("etcd", "etcd-server")):
        foreseen = command(site, VERB, "--of", which, "--plan")
        assert (foreseen.code, foreseen.report["outcome"]) == (0, "planned"), foreseen.output
        rows = [(one["host"], row) for one in foreseen.report["stages"] for row in one["rows"]]
        drifted = {(host, row["step"]) for host, row in rows if row["outcome"] == "drifted"}
        assert {(host, "the host trusts the CA that is wanted") for host in PLANES} <= drifted
        assert {(host, "kube-apiserver uses its current certificates") for host in PLANES} <= drifted
        assert any(certificate in row["have"] for _, row in rows)
        assert not [host for host, _ in drifted if host == WORKER]
    assert {host: site.on(host, STATE) for host in NAMES} == before
    assert holds(site, "cp1") == holder


def test_the_front_proxys_ca_is_replaced_and_an_aggregated_api_that_does_not_hear_of_it_is_told(
    site: Site, holder: str
) -> None:
    old_pem, old = site.on("cp1", f"cat {PROXY}"), name(site, PROXY)
    serve(site, old_pem)
    text = OBJECTS.replace("GROUP", GROUP).replace("ADDRESS", site.lab.plan.host(WORKER).address)
    site.lab.exec("cp1", "sh", "-c", f"kubectl --kubeconfig {ADMIN} apply -f -", give=text)
    wait_available(site)
    kubelets = pids(site)
    kill_when(site, "cp2", f"[ $(grep -c BEGIN {PROXY}) = 2 ]", "front-proxy")
    refused = command(site, VERB, "--of", "etcd", "--plan")
    assert "SHW-856" in codes(refused), refused.output
    rests = rotate(site, "front-proxy", "--until", "trust")
    assert (rests.code, rests.report["errors"]) == (0, []), rests.output
    assert (count(site, PROXY), kubectl(site, TOLD)) == (["2"] * 3, "2")
    assert {issuer(site, host, f"{PKI}/front-proxy-client.crt") for host in PLANES} == {old}
    assert kubectl(site, AVAILABLE) == "True"
    lost = rotate(site, "front-proxy")
    assert lost.code == 3, lost.output
    assert any("aggregated APIs are lost by the API server of cp1" in said for said in lost.report["warnings"])
    new = name(site, f"{PROXY_FOLDER}/new.crt")
    assert [issuer(site, host, f"{PKI}/front-proxy-client.crt") for host in PLANES] == [new, old, old]
    serve(site, site.on("cp1", f"cat {PROXY}"))  # as its owner starts it anew
    wait_available(site)
    ended = rotate(site, "front-proxy")
    assert (ended.code, ended.report["errors"]) == (0, []), ended.output
    assert (count(site, PROXY), kubectl(site, TOLD)) == (["1"] * 3, "1")
    assert name(site, PROXY) == new
    assert {issuer(site, host, f"{PKI}/front-proxy-client.crt") for host in PLANES} == {new}
    serve(site, site.on("cp1", f"cat {PROXY}"))  # believes the new one alone
    wait_available(site)
    for host in PLANES:
        own = f"--server https://{site.lab.plan.host(host).address}:6443"
        assert GROUP in kubectl(site, f"{own} get --raw /apis/{GROUP}/v1", host)
        assert not site.holds(host, f"[ -e {PROXY_FOLDER} ]")
        kept = site.on(host, "stat -c '%a %U' /etc/kubernetes/before-renewal-front-proxy-ca-*/*").splitlines()
        assert set(kept) == {"600 root"}
    assert pids(site) == kubelets
    assert holds(site, "cp1") == holder
    again = rotate(site, "front-proxy")
    assert (again.code, changes(again)) == (0, [])
    kubectl(site, f"delete apiservice v1.{GROUP}")
    site.on(WORKER, "systemctl stop lab-server")
    assert site.run(seconds=600).report["errors"] == []
    assert (drift(site)["findings"], drift(site)["errors"]) == ([], [])


def keep_old_client(site: Site) -> None:
    """Keep a client of etcd as somebody has copied it: the old CA, and a pair that it signed."""
    site.on("cp1", f"mkdir -p {OLD} && cp {PKI}/etcd/ca.crt {PKI}/etcd/healthcheck-client.* {OLD}/")


def old_client(site: Site) -> dict[str, Any]:
    """Return what etcd answers to it; empty where it turns it away."""
    words = f"--cacert {OLD}/ca.crt --cert {OLD}/healthcheck-client.crt --key {OLD}/healthcheck-client.key"
    text = site.on("cp1", f"curl -s --max-time 5 {words} https://127.0.0.1:2379/health || true")
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def test_a_rotation_of_etcds_ca_that_was_killed_goes_back(site: Site, holder: str) -> None:
    old = name(site, ETCD)
    keep_old_client(site)
    assert command(site, "backup").code == 0
    kill_when(site, "cp2", f"[ $(grep -c BEGIN {ETCD}) = 2 ]", "etcd")
    back = rotate(site, "etcd", "--back")
    assert (back.code, back.report["errors"]) == (0, []), back.output
    assert (count(site, ETCD), name(site, ETCD)) == (["1"] * 3, old)
    assert not [host for host in PLANES if site.holds(host, f"[ -e {ETCD_FOLDER} ]")]
    assert old_client(site) != {}
    assert drift(site)["findings"] == []
    assert holds(site, "cp1") == holder


def test_etcds_ca_is_replaced_one_member_at_a_time_and_never_two_are_away(site: Site, holder: str) -> None:
    kubelets = pids(site)
    assert command(site, "backup").code == 0
    ran: list[Ran] = []
    with etcds_watched(site) as away:
        gap, answers = asked(site, lambda: ran.append(rotate(site, "etcd", "--until", "certificates")))
    assert (ran[0].code, ran[0].report["errors"]) == (0, []), ran[0].output
    assert all(away.values()), "each etcd was started anew"
    assert together(away) == []
    assert answers > 20
    assert gap < MOST_SECONDS
    new = name(site, f"{ETCD_FOLDER}/new.crt")
    assert {shown_by(site, host, port) for host in PLANES for port in (2379, 2380)} == {new}
    assert issuer(site, "cp3", f"{PKI}/apiserver-etcd-client.crt") == new
    assert issuer(site, "cp3", f"{PKI}/etcd/healthcheck-client.crt") == new
    keep = old_client(site)
    assert keep == {}, "it trusts the old CA alone, and is shown the new one's certificate"
    assert command(site, "backup").code == 0  # by the files on the host, beside two CAs
    kill_when(site, "cp1", f"[ $(grep -c BEGIN {ETCD}) = 1 ]", "etcd")
    assert "SHW-857" in codes(rotate(site, "etcd", "--back"))
    with etcds_watched(site) as away:
        ended = rotate(site, "etcd")
    assert (ended.code, ended.report["errors"]) == (0, []), ended.output
    assert together(away) == []
    assert (count(site, ETCD), name(site, ETCD)) == (["1"] * 3, new)
    site.on("cp1", f"cp {ETCD} {OLD}/ca.crt")  # trusts the new one now, and shows what the old one signed
    assert old_client(site) == {}
    assert sorted(one["name"] for one in members(site, "cp2")) == list(PLANES)
    assert nodes(site, "cp3") == dict.fromkeys(NAMES, True)
    assert pids(site) == kubelets
    assert holds(site, "cp1") == holder
    assert command(site, "backup").code == 0
    for host in PLANES:
        assert not site.holds(host, f"[ -e {ETCD_FOLDER} ]")
        kept = site.on(host, "stat -c '%a %U' /etc/kubernetes/before-renewal-etcd-ca-*/*").splitlines()
        assert set(kept) == {"600 root"}
    line = site.on("cp1", f"sed -n 3p {PKI}/etcd/ca.key").strip()
    places = (str(site.folder / "prefect"), str(site.folder / "controller"))
    found = subprocess.run(("grep", "-rlF", "--", line, *places), check=False, capture_output=True, text=True)
    assert found.stdout == ""  # neither Prefect's database nor a log of this machine has its key
    again = rotate(site, "etcd")
    assert (again.code, changes(again)) == (0, [])
    assert site.run(seconds=600).report["errors"] == []
    assert (drift(site)["findings"], drift(site)["errors"]) == ([], [])
