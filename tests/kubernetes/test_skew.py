"""No package step makes a kubelet another version than its API server, and a bootstrap does not upgrade."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.options import Options
from shipway.errors import Blocked, Refused
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.facts.packages import PackageInfo
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.os.debian.dpkg import Package
from shipway.os.debian.packages import PackagesInstalled
from shipway.ownership.evidence import ADMIN
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.health import KUBELET_CERTIFICATE
from shipway.steps.kubernetes.join.worker import KUBELET_CONF
from shipway.steps.kubernetes.skew import (
    CA,
    VersionKept,
    VersionRuns,
    _ask,
    permit_same_version,
    server_version,
    version_of,
)
from tasks.stages import kubernetes_packages
from tests.places.facts import DEBIAN, KnownFacts
from tests.places.simulated import failed, outcomes, simulated_place

CONF = "clusters:\n- cluster:\n    server: https://10.0.0.1:6443\n  name: x\n"
NEWER = "1.99.9"


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ('{"gitVersion": "v1.36.2"}', "1.36.2"),
        ('{"gitVersion": "v1.36.2-rc.1+abc"}', "1.36.2"),
        ('{"gitVersion": 7}', None),
        ('{"kind": "Status", "code": 403}', None),
        ("[]", None),
        ("ok", None),
    ],
)
def test_the_version_is_read_from_the_answer(answer: str, version: str | None) -> None:
    assert version_of(answer) == version


@pytest.mark.parametrize("conf", [CONF, CONF.replace("server", "sever")])
async def test_where_the_version_cannot_be_reported_nothing_is_installed_on_a_node(conf: str) -> None:
    old = PackageInfo("1.35.2-1.1", held=True, sound=True)
    host = KnownFacts({FileText(KUBELET_CONF): conf, Package("kubelet"): old})
    permit = partial(permit_same_version, wanted="1.36.0")
    with pytest.raises(Blocked, match="cannot be determined"):
        await DEBIAN.in_version("x", {"kubelet": "1.36.0"}, permit=permit).check(cast("Host", host))
    assert await server_version(cast("Host", KnownFacts({}))) is None, "a host that has not joined may have any version"


@pytest.mark.parametrize(
    ("answer", "permitted"), [('{"gitVersion": "v1.36.0"}', True), ('{"gitVersion": "v1.36.1"}', False)]
)
async def test_a_node_gets_only_the_packages_of_its_own_api_server(answer: str, *, permitted: bool) -> None:
    """It is asked from the server that kubelet.conf names, and its answer counts, whatever the file says."""
    asked = _ask("https://10.0.0.1:6443", "--cacert", CA, "--cert", KUBELET_CERTIFICATE)
    host = cast("Host", KnownFacts({FileText(KUBELET_CONF): CONF, asked: Output(0, answer, "")}))
    await permit_same_version(cast("Host", KnownFacts({})), wanted="1.36.0")
    if permitted:
        await permit_same_version(host, wanted="1.36.0")
        return
    with pytest.raises(Refused, match=r"the API server runs v1\.36\.1") as refused:
        await permit_same_version(host, wanted="1.36.0")
    assert refused.value.code == "SHW-329"


class Api:
    """An API that answers this to /version."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer it."""
        assert path == "/version"
        return 200, self.text


async def test_a_running_cluster_of_another_version_is_refused_and_one_that_tells_none_is_drift() -> None:
    step = VersionRuns("1.36.2")
    assert await step.check(cast("Kube", Api('{"gitVersion": "v1.36.2"}'))) is None
    assert await step.check(cast("Kube", Api("ok"))) == Drift("no version", "v1.36.2")
    with pytest.raises(Refused, match=r"the running cluster is v1\.35\.0, the file says v1\.36\.2") as refused:
        await step.check(cast("Kube", Api('{"gitVersion": "v1.35.0"}')))
    assert refused.value.code == "SHW-330"


@pytest.mark.parametrize(
    ("admin", "answer", "refused"),
    [
        (True, '{"gitVersion": "v1.35.0"}', True),
        (True, '{"gitVersion": "v1.36.2"}', False),
        (True, "", False),
        (False, '{"gitVersion": "v1.35.0"}', False),
    ],
)
async def test_only_a_control_plane_that_answers_another_version_is_refused(
    answer: str, *, admin: bool, refused: bool
) -> None:
    """What answers there on a host without an admin.conf is no control plane of ours: the gate before an init tells."""
    facts: dict[Fact[Any], Any] = {_ask("https://127.0.0.1:6443", "-k"): Output(0, answer, "")}
    if admin:
        facts[FileState(ADMIN)] = FileInfo("0" * 64, "600", "root:root", 1)
    check = VersionKept("1.36.2", 6443).check(cast("Host", KnownFacts(facts)))
    if not refused:
        assert await check is None
        return
    with pytest.raises(Refused) as raised:
        await check
    assert raised.value.code == "SHW-330"


async def test_a_version_edited_in_the_file_of_a_running_cluster_is_refused_and_moves_no_package(
    tmp_path: Path,
) -> None:
    async with simulated_place(tmp_path, Options(scale=0.01)) as place:
        await place.prepare("te1", "te2")
        assert outcomes(await place.init()) <= {"ok", "changed"}
        assert outcomes(await place.join("te2")) <= {"ok", "changed"}
        edited = place.cluster.kubernetes.model_copy(update={"version": NEWER})
        cluster = place.cluster.model_copy(update={"kubernetes": edited})
        before = {name: dict(place.machine(name).packages.installed) for name in ("te1", "te2")}
        for name, packages in before.items():
            steps = kubernetes_packages.steps(cluster, cluster.host(name), DEBIAN)
            changing = [step for step in steps if isinstance(step, PackagesInstalled)]
            results = await place.run(changing, name, Impact.WORKLOADS)
            assert [result.outcome for result in results] == ["ok", "failed"]
            assert "SHW-329" in failed(results)[0]
            assert place.cluster.kubernetes.version in failed(results)[0]
            assert place.machine(name).packages.installed == packages
        control = place.session("te1")
        assert await VersionKept(place.cluster.kubernetes.version, 6443).check(control) is None
        control.forget()
        with pytest.raises(Refused, match=f"the file says v{NEWER}: upgrades are not done by this command"):
            await VersionKept(NEWER, 6443).check(control)


async def test_a_lost_kubelet_is_installed_anew_in_the_version_that_its_api_server_runs(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(scale=0.01)) as place:
        await place.prepare("te1")
        await place.init()
        machine, cluster = place.machine("te1"), place.cluster
        del machine.packages.installed["kubectl"]
        steps = kubernetes_packages.steps(cluster, cluster.host("te1"), DEBIAN)
        results = await place.run(steps[:3], "te1", Impact.SERVICE)
        assert [result.outcome for result in results] == ["ok", "changed", "ok"], failed(results)
