"""Rows of the drift table that change what the whole cluster is: the default runtime, the dashboard, a bare worker."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab.containers.cluster_file import content
from tests.drift.page import keep
from tests.drift.rows import CONTAINERD, LOADED
from tests.lab.conftest import ROOT, Site
from tests.lab.drifting import passed

pytestmark = [
    pytest.mark.lab,
    pytest.mark.lab_long,  # six minutes: each changes what the whole cluster is
]
DASHBOARD = ROOT / "lab" / "simulated" / "manifests" / "dashboard.yaml"  # the objects alone: there is no image of it


def test_nvidia_is_no_longer_the_default_runtime(drifting: Site) -> None:
    drifting.cluster_file(gpu={"mode": "default_runtime", "compute": "off"})
    assert drifting.run().code == 0
    drifting.on("w1", f"sed -i 's/default_runtime_name = .*/default_runtime_name = \"runc\"/' {CONTAINERD}")
    report = passed(drifting, "service")
    ends = {finding.step: finding for finding in report.findings if finding.host == "w1"}
    lost = ends["nvidia is containerd's default runtime"]
    assert "runc" in lost.have
    assert {finding.action for finding in ends.values()} == {"repaired"}
    assert LOADED in ends
    assert report.outcome == "ok"
    assert 'default_runtime_name = "nvidia"' in drifting.on("w1", "containerd config dump")
    keep("nvidia is no longer containerd's default runtime", lost, "containers")


def test_the_dashboards_service_is_put_back_on_its_port(drifting: Site) -> None:
    sources = content(drifting.lab.plan, drifting.lab.state)["sources"]
    own = {"path": str(DASHBOARD), "sha256": hashlib.sha256(DASHBOARD.read_bytes()).hexdigest()}
    drifting.cluster_file(
        gpu={"mode": "default_runtime", "compute": "off"},
        dashboard={"enabled": True},
        sources={**sources, "manifests": {"dashboard": own}},
    )
    assert passed(drifting, "service").outcome == "ok"  # what is missing altogether is drift as well
    port = "-n kubernetes-dashboard get svc kubernetes-dashboard -o jsonpath={.spec.ports[0].nodePort}"
    assert drifting.kubectl(port) == "31000"
    patch = '[{"op":"replace","path":"/spec/ports/0/nodePort","value":31777}]'
    drifting.kubectl(f"-n kubernetes-dashboard patch svc kubernetes-dashboard --type json -p '{patch}'")
    report = passed(drifting, "service")
    assert [finding.action for finding in report.findings] == ["repaired"]
    assert drifting.kubectl(port) == "31000"
    keep("the dashboard's service is edited", report.findings[0], "containers")
    drifting.kubectl("delete namespace kubernetes-dashboard --wait=false")
    drifting.cluster_file()


def test_a_declared_host_that_never_joined_is_reported_and_nothing_else_of_it(drifting: Site) -> None:
    """The last row: w2 becomes a bare host that the cluster knows nothing of."""
    drifting.kubectl("delete node w2")
    drifting.lab.fresh("w2")
    file = drifting.cluster_file(gpu={"mode": "default_runtime", "compute": "off"})
    report = passed(drifting, "service")
    (finding,) = report.findings
    assert (finding.host, finding.step, finding.action) == ("w2", "the node has joined", "reported")
    assert finding.command == f"python -m flows.bootstrap {Path(file)} --host w2"
    keep("a declared host never joined", finding, "containers")
