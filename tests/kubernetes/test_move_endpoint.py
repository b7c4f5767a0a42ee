"""An endpoint is moved in each place that names it, whatever else is there stays, and what cannot be is refused."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.converge import converge, look_at_all
from shipway.edits.kubeconfig import with_server
from shipway.errors import ApiUnavailable, Blocked, Permanent, Refused
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.services import UnitInfo, UnitState
from shipway.kube.client import Kube
from shipway.kubeadm.writes import ETC, PKI
from shipway.ownership.evidence import ADMIN, KUBELET_CONF
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.endpoint.certificate import CONFIG, MAKE, NAMES, NEW, CertificateNames, names_in, names_of
from shipway.steps.endpoint.kubeconfigs import (
    EDIT,
    MANAGER,
    MARK,
    SERVERS,
    SUPER_ADMIN,
    KubeconfigLeads,
    KubeletAsks,
    leads_to,
)
from shipway.steps.endpoint.objects import LED, ClusterInfoLeads, EndpointRecorded, KubeProxyLeads
from shipway.steps.endpoint.possible import ApiAnswersByName, EndpointMayMove, EveryNodeAnswers
from shipway.steps.kubernetes.endpoint import proof
from shipway.steps.kubernetes.health import KUBELET_CONFIG, KUBELET_FILES
from shipway.steps.system.loaded import FOLDER
from shipway.survey.first_look import CLOCK
from tests.ownership.test_leading import NAME, cluster
from tests.places.facts import KnownFacts, said
from tests.places.kube import Place, cluster_of, gpu_host, place

OLD, NEW_PLACE = "10.9.0.1:6443", f"{NAME}:6443"
SHOWN = """X509v3 Subject Alternative Name:
    DNS:cp1, DNS:kubernetes, DNS:site.example, IP Address:10.9.0.1, IP Address:FD00:0:0:0:0:0:0:1
"""


# --- the certificate


def certified(shown: str, status: int = 0, *, own: tuple[str, ...] = ("ca.crt", "ca.key")) -> KnownFacts:
    return KnownFacts({NAMES: said(shown, status), Listing(PKI): own})


def of_one() -> CertificateNames:
    made = cluster(1)
    return CertificateNames(made, made.hosts[0])


def test_openssls_list_of_names_is_read_and_addresses_have_one_spelling() -> None:
    assert names_in(SHOWN) == {"cp1", "kubernetes", "site.example", "10.9.0.1", "fd00::1"}
    assert names_in("unable to load certificate") == frozenset()


async def test_a_certificate_that_is_good_for_every_name_is_left_and_one_that_lacks_one_is_not() -> None:
    good = f"    DNS:{NAME}, DNS:localhost, IP Address:127.0.0.1, IP Address:10.9.0.1\n"
    assert await of_one().check(certified(good)) is None  # type: ignore[arg-type]
    lacks = await of_one().check(certified(SHOWN))  # type: ignore[arg-type]
    assert lacks is not None
    assert lacks.have == f"not for {NAME}, 127.0.0.1, localhost"
    pair = await of_one().check(certified(good, 1))  # type: ignore[arg-type]
    assert pair is not None
    assert "another one's" in pair.have


async def test_without_the_key_of_the_authority_nothing_is_signed_and_a_good_certificate_needs_none() -> None:
    with pytest.raises(Refused) as raised:
        await of_one().check(certified(SHOWN, own=("ca.crt",)))  # type: ignore[arg-type]
    assert raised.value.code == "SHW-772"
    good = f"DNS:{NAME}, DNS:localhost, IP Address:127.0.0.1, IP Address:10.9.0.1"
    assert await of_one().check(certified(good, own=("ca.crt",))) is None  # type: ignore[arg-type]
    with pytest.raises(Blocked, match="no openssl"):
        await of_one().check(certified("", 127))  # type: ignore[arg-type]


async def test_kubeadm_is_given_the_old_names_too_and_a_folder_of_its_own() -> None:
    host = certified(SHOWN)
    await of_one().apply(host)  # type: ignore[arg-type]
    documents = list(yaml.safe_load_all(host.written[CONFIG]))
    assert documents[1]["certificatesDir"] == NEW
    assert documents[1]["controlPlaneEndpoint"] == NEW_PLACE
    names = documents[1]["apiServer"]["certSANs"]
    assert set(names) >= {NAME, "127.0.0.1", "localhost", "10.9.0.1", "site.example", "fd00::1"}
    assert len(names) == len(set(names))
    assert documents[0]["localAPIEndpoint"]["advertiseAddress"] == "10.9.0.1"
    (line,) = host.done
    assert line.endswith(f"{PKI} kubeadm init phase certs apiserver --config {CONFIG}")


def made_by(folder: Path, kubeadm: str) -> tuple[int, dict[str, str]]:
    """Run the script with a stand-in for kubeadm; return its exit status and what lies in the folder afterwards."""
    pki, new, keep = folder / "pki", folder / "new", folder / "keep"
    pki.mkdir()
    for name in ("apiserver.crt", "apiserver.key", "ca.crt", "ca.key"):
        (pki / name).write_text(f"old {name}")
    ran = subprocess.run(
        ("bash", "-c", MAKE, "bash", str(new), str(keep), str(pki), "sh", "-c", kubeadm, "kubeadm", str(new)),
        check=False,
        capture_output=True,
    )
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return ran.returncode, found


def test_a_new_pair_takes_the_old_ones_place_which_is_kept(tmp_path: Path) -> None:
    write = 'for x in crt key; do echo "new $x, by $(cat "$1/ca.key")" > "$1/apiserver.$x"; done'
    status, found = made_by(tmp_path, write)
    assert status == 0
    assert found == {
        "pki/apiserver.crt": "new crt, by old ca.key\n",
        "pki/apiserver.key": "new key, by old ca.key\n",
        "pki/ca.crt": "old ca.crt",
        "pki/ca.key": "old ca.key",
        "keep/apiserver.crt": "old apiserver.crt",
        "keep/apiserver.key": "old apiserver.key",
    }
    assert stat.S_IMODE((tmp_path / "keep" / "apiserver.key").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("kubeadm", ["exit 1", "true", 'echo half > "$1/apiserver.crt"'])
def test_where_kubeadm_makes_no_whole_pair_the_old_one_stays(tmp_path: Path, kubeadm: str) -> None:
    status, found = made_by(tmp_path, kubeadm)
    assert status != 0
    assert (found["pki/apiserver.crt"], found["pki/apiserver.key"]) == ("old apiserver.crt", "old apiserver.key")
    assert "pki/ca.key" in found


# --- kubeconfigs


@pytest.mark.parametrize(("version", "kubelet"), [("1.31.7", (NEW_PLACE,)), ("1.36.2", (OLD, NEW_PLACE))])
def test_each_kubeconfig_leads_where_kubeadm_of_its_minor_lets_it_lead(version: str, kubelet: tuple[str, ...]) -> None:
    made = cluster(1)
    made = made.model_copy(update={"kubernetes": made.kubernetes.model_copy(update={"version": version})})
    plane, worker = (leads_to(made, host) for host in made.hosts)
    assert (plane[ADMIN], plane[SUPER_ADMIN], plane[MANAGER]) == ((NEW_PLACE,), (NEW_PLACE,), (OLD, NEW_PLACE))
    assert plane[KUBELET_CONF] == kubelet
    assert worker == {KUBELET_CONF: (NEW_PLACE,)}


def with_servers(*lines: str) -> KnownFacts:
    return KnownFacts({SERVERS: said("".join(f"{line}\n" for line in lines))})


@pytest.mark.parametrize(
    ("line", "drifts"),
    [
        (f"{KUBELET_CONF}:    server: https://{OLD}", True),
        (f'{KUBELET_CONF}:    server: "https://{OLD}/"', True),
        (f"{KUBELET_CONF}:    server: https://{NEW_PLACE}", False),
        (f"{KUBELET_CONF}:  - server: https://127.0.0.1:6443", False),
        (f"{ADMIN}:    server: https://{OLD}", False),
    ],
)
async def test_what_leads_elsewhere_is_told_but_for_the_loopback(line: str, drifts: bool) -> None:  # noqa: FBT001
    seen = await KubeconfigLeads(KUBELET_CONF, (NEW_PLACE,)).check(with_servers(line))  # type: ignore[arg-type]
    assert (seen is not None) is drifts


async def test_kubeconfigs_that_could_not_be_read_lead_nobody_knows_where() -> None:
    with pytest.raises(Blocked, match="could not be read"):
        await KubeconfigLeads(ADMIN, (NEW_PLACE,)).check(KnownFacts({SERVERS: said("", 124)}))  # type: ignore[arg-type]
    some = f"{KUBELET_CONF}:    server: https://{NEW_PLACE}\n"  # a worker has no others, of which grep tells by a 2
    assert await KubeconfigLeads(ADMIN, (NEW_PLACE,)).check(KnownFacts({SERVERS: said(some, 2)})) is None  # type: ignore[arg-type]


async def test_a_kubeconfig_of_several_clusters_is_a_persons_to_edit() -> None:
    lines = (f"{ADMIN}:    server: https://{OLD}", f"{ADMIN}:    server: https://other.example:6443")
    with pytest.raises(Permanent) as raised:
        await KubeconfigLeads(ADMIN, (NEW_PLACE,)).check(with_servers(*lines))  # type: ignore[arg-type]
    assert raised.value.code == "SHW-773"


def run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)


def names_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Shell(KnownFacts):
    """Runs the commands that it is given here, with another path in the place of the file's."""

    def __init__(self, facts: dict[Fact[Any], Any], paths: dict[str, Path]) -> None:
        super().__init__(facts)
        self.paths = paths

    async def do(self, *commands: Any) -> list[Output]:
        """Run them."""
        for command in commands:
            run([str(self.paths.get(word, word)) for word in command.words])
        return [Output(0, "", "") for _ in commands]


KUBECONFIG = """apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: QUJD
    server: https://10.9.0.1:6443
  name: te
# server: https://10.9.0.1:6443 was the first one
users:
- name: default-auth
  user: {client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem}
"""


async def test_only_the_line_of_the_server_changes_and_a_kubelets_change_is_marked(tmp_path: Path) -> None:
    conf, mark = tmp_path / "kubelet.conf", tmp_path / "shipway" / "kubelet-asks"
    conf.write_text(KUBECONFIG)
    conf.chmod(0o640)
    line = said(f"{KUBELET_CONF}:    server: https://{OLD}\n")
    host = Shell({SERVERS: line}, {KUBELET_CONF: conf, MARK: mark})
    await KubeconfigLeads(KUBELET_CONF, (NEW_PLACE,)).apply(host)  # type: ignore[arg-type]
    assert conf.read_text() == KUBECONFIG.replace(f"    server: https://{OLD}", f"    server: https://{NEW_PLACE}")
    assert stat.S_IMODE(conf.stat().st_mode) == 0o640
    assert mark.read_text() == f"https://{NEW_PLACE}\n"
    assert names_below(tmp_path) == ["kubelet.conf", "shipway"]
    admin = tmp_path / "admin.conf"
    admin.write_text(KUBECONFIG)
    mark.unlink()
    other = Shell({SERVERS: said(f"{ADMIN}:    server: https://{OLD}\n")}, {ADMIN: admin})
    await KubeconfigLeads(ADMIN, (NEW_PLACE,)).apply(other)  # type: ignore[arg-type]
    assert NEW_PLACE in admin.read_text()
    assert not mark.exists()


HOSTILE = "https://a.b*c:1/$(touch${IFS}here)|e;s|x|y|w[here]^\\1&`touch${IFS}here`"


async def test_a_server_that_means_something_to_a_shell_or_to_sed_is_but_text(tmp_path: Path) -> None:
    conf, mark = tmp_path / "kubelet.conf", tmp_path / "mark"
    other = HOSTILE.replace("a.b*c", "aXbbc")
    conf.write_text(f"    server: {HOSTILE}\n#   server: {HOSTILE}\n    x: {other}\n    server: {other}\n")
    host = Shell({SERVERS: said(f"{KUBELET_CONF}:    server: {HOSTILE}\n")}, {KUBELET_CONF: conf, MARK: mark})
    await KubeconfigLeads(KUBELET_CONF, (NEW_PLACE,)).apply(host)  # type: ignore[arg-type]
    want = f"    server: https://{NEW_PLACE}\n#   server: {HOSTILE}\n    x: {other}\n    server: {other}\n"
    assert conf.read_text() == want
    assert names_below(tmp_path) == ["kubelet.conf", "mark"]


def test_the_mark_is_there_before_the_file_is_changed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ran = subprocess.run(("sh", "-c", EDIT, "sh", str(tmp_path / "none"), "s|a|b|", str(mark), "x"), check=False)
    assert ran.returncode != 0
    assert mark.read_text() == "x\n"


def started(at: int, invocation: str = "one") -> UnitInfo:
    return UnitInfo("loaded", "active", "running", "enabled", at, needs_reload=False, invocation=invocation)


async def test_a_kubelet_is_restarted_once_after_its_server_was_changed_and_never_without_that() -> None:
    unit, mark = UnitState("kubelet.service"), FileState(MARK)
    facts: dict[Fact[Any], Any] = {CLOCK: said("5000"), unit: started(1000)}
    assert await KubeletAsks().check(KnownFacts(facts)) is None  # type: ignore[arg-type]
    facts[mark] = FileInfo("d" * 64, "600", "root:root", 2000)
    host = KnownFacts(facts)
    assert await KubeletAsks().check(host) is not None  # type: ignore[arg-type]
    host.facts[unit] = started(2001, "two")
    assert await KubeletAsks().check(host) is None  # type: ignore[arg-type]
    await KubeletAsks().apply(host)  # type: ignore[arg-type]
    assert "systemctl restart kubelet" in host.done
    host.facts[FileText(f"{FOLDER}/kubelet")] = host.written[f"{FOLDER}/kubelet"]
    assert all(path in host.written[f"{FOLDER}/kubelet"] for path in (*KUBELET_FILES, KUBELET_CONFIG, MARK))
    host.facts[mark] = FileInfo("e" * 64, "600", "root:root", 2000)  # changed again since
    assert await KubeletAsks().check(host) is not None  # type: ignore[arg-type]
    host.facts[unit] = UnitInfo("loaded", "inactive", "dead", "enabled", 0, needs_reload=False)
    assert await KubeletAsks().check(host) is None  # type: ignore[arg-type]


# --- in the cluster


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    wanted = cluster_of(["te1", "te2"])
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 1)], cluster=wanted, endpoint="10.9.0.11:6443") as made:
        yield made


async def outcomes(kube: Kube, *steps: Any, allow: Impact = Impact.SERVICE) -> list[str]:
    kube.forget()
    return [one.outcome for one in await converge(steps, kube, allow)]


def steps_for(endpoint: str) -> tuple[EndpointRecorded, ClusterInfoLeads, KubeProxyLeads]:
    names = (endpoint.rpartition(":")[0], "127.0.0.1")
    return EndpointRecorded(endpoint, names), ClusterInfoLeads(endpoint), KubeProxyLeads(endpoint)


async def test_the_cluster_names_the_new_endpoint_everywhere_once_and_keeps_all_else(small: Place) -> None:
    kube, steps = small.kube, steps_for("api.demo.internal:6443")
    record = await kube.get("v1", "ConfigMap", "kubeadm-config", "kube-system")
    assert record is not None
    before = yaml.safe_load(record["data"]["ClusterConfiguration"])
    assert before["controlPlaneEndpoint"] == "10.9.0.11:6443"
    assert await outcomes(kube, *steps, allow=Impact.NOTHING) == ["drifted"] * 3
    assert await outcomes(kube, *steps) == ["changed"] * 3
    assert await outcomes(kube, *steps) == ["ok"] * 3
    maps = {one["metadata"]["name"]: one for one in await kube.list_("v1", "ConfigMap")}
    after = yaml.safe_load(maps["kubeadm-config"]["data"]["ClusterConfiguration"])
    assert after.pop("controlPlaneEndpoint") == "api.demo.internal:6443"
    assert after["apiServer"].pop("certSANs") == ["api.demo.internal", "127.0.0.1"]
    before.pop("controlPlaneEndpoint")
    before["apiServer"].pop("certSANs", None)
    assert after == before
    assert "10.9.0.11" not in str([maps["cluster-info"]["data"], maps["kube-proxy"]["data"]])
    pods = await kube.get("apps/v1", "DaemonSet", "kube-proxy", "kube-system")
    assert pods is not None
    assert pods["spec"]["template"]["metadata"]["annotations"][LED].startswith("https://api.demo.internal:6443 after ")


async def test_a_cluster_that_always_had_the_name_has_no_kube_proxy_made_anew(small: Place) -> None:
    kube, step = small.kube, KubeProxyLeads("10.9.0.11:6443")
    assert await outcomes(kube, step) == ["ok"]
    for loopback in ("https://127.0.0.1:7443", "https://localhost:6443"):  # a site's own way: no other host's address
        text = with_server(await proxy_text(kube), loopback)
        await kube.patch("v1", "ConfigMap", "kube-proxy", {"data": {"kubeconfig.conf": text}}, "kube-system")
        assert await outcomes(kube, KubeProxyLeads("api.demo.internal:6443")) == ["ok"]


async def proxy_text(kube: Kube) -> str:
    found = await kube.get("v1", "ConfigMap", "kube-proxy", "kube-system", fresh=True)
    assert found is not None
    return str(found["data"]["kubeconfig.conf"])


async def test_whoever_was_cut_off_before_kube_proxys_pods_were_made_anew_does_it_the_next_time(small: Place) -> None:
    kube, want = small.kube, "https://api.demo.internal:6443"
    half = {
        "metadata": {"annotations": {LED: want}},
        "data": {"kubeconfig.conf": with_server(await proxy_text(kube), want)},
    }
    await kube.patch("v1", "ConfigMap", "kube-proxy", half, "kube-system")
    step = KubeProxyLeads("api.demo.internal:6443")
    kube.forget()
    seen = await step.check(kube)
    assert seen is not None
    assert seen.have == "its pods were made before"
    assert await outcomes(kube, step) == ["changed"]
    assert await outcomes(kube, step) == ["ok"]


async def test_whoever_was_cut_off_and_goes_back_has_the_pods_made_anew_that_may_have_read_the_other(
    small: Place,
) -> None:
    kube, there, back = small.kube, KubeProxyLeads("lb.example:6443"), KubeProxyLeads("api.demo.internal:6443")
    assert await outcomes(kube, back) == ["changed"]
    pods = await kube.get("apps/v1", "DaemonSet", "kube-proxy", "kube-system")
    assert pods is not None
    assert await outcomes(kube, there) == ["changed"]
    await kube.patch(
        "apps/v1", "DaemonSet", "kube-proxy", {"spec": {"template": pods["spec"]["template"]}}, "kube-system"
    )
    kube.forget()
    assert await there.check(kube) is not None  # cut off before: the pods' template is as it was
    assert await outcomes(kube, back) == ["changed"]
    made = await kube.get("apps/v1", "DaemonSet", "kube-proxy", "kube-system", fresh=True)
    assert made is not None
    assert made["spec"]["template"] != pods["spec"]["template"]


async def test_what_a_cluster_does_without_names_no_other_endpoint(small: Place) -> None:
    kube = small.kube
    for kind, name, namespace in (
        ("ConfigMap", "kube-proxy", "kube-system"),
        ("ConfigMap", "cluster-info", "kube-public"),
    ):
        await kube.delete("v1", kind, name, namespace)
    assert await outcomes(kube, *steps_for("api.demo.internal:6443")[1:]) == ["ok", "ok"]


async def test_every_node_has_to_be_reached_and_ready_before_anything_is_moved(small: Place) -> None:
    kube = small.kube
    for name in ("te1", "te2"):
        node = await kube.get("v1", "Node", name)
        assert node is not None
    results = await look_at_all([EveryNodeAnswers(["te1"]), EveryNodeAnswers(["te1", "te2"])], kube)
    found = [(one.error.code, one.error.message) for one in results if one.error]
    assert found[0][0] == "SHW-776"
    assert "te2" in found[0][1]
    assert found[1][0] == "SHW-777"  # no pod network yet


def declared(more: str = "") -> Cluster:
    return parse_cluster(f"name: te\nhosts:\n- {{name: cp1, address: 10.9.0.1}}\n{more}")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("", ""),
        ("kubernetes: {api_endpoint: {name: api.example}}\n", ""),
        ("kubernetes: {api_endpoint: lb.example}\n", ""),
        ("kubernetes: {api_endpoint: {kind: external, name: lb.example, port: 443}}\n", ""),
        ("kubernetes: {api_endpoint: 10.9.0.1}\n", "SHW-774"),
        ("kubernetes: {api_endpoint: 10.9.0.7}\n", "SHW-774"),
        ("kubernetes: {api_endpoint: {kind: external, name: api.te.internal}}\n", "SHW-775"),
    ],
)
async def test_an_endpoint_is_moved_to_a_name_that_leads_somewhere_else_without_us(more: str, code: str) -> None:
    check = EndpointMayMove(declared(more), {NAME, "api.old.example"})
    (result,) = await look_at_all([check], KnownFacts({}))  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == code


@pytest.mark.parametrize(("status", "kind"), [(0, None), (60, Permanent), (51, Permanent), (7, ApiUnavailable)])
async def test_a_host_that_the_name_does_not_lead_to_this_clusters_api_ends_it(status: int, kind: Any) -> None:
    host = KnownFacts({proof(f"https://{NEW_PLACE}/livez", "PEM"): Output(status, "200", "curl: why")})
    check = ApiAnswersByName(NEW_PLACE, "PEM")
    if kind is None:
        assert await check.check(host) is None  # type: ignore[arg-type]
        return
    with pytest.raises(kind) as raised:
        await check.check(host)  # type: ignore[arg-type]
    assert raised.value.code == ("SHW-778" if kind is Permanent else ApiUnavailable.default_code)
    assert "PEM" not in repr(check)


def test_the_kept_pair_is_where_a_reset_finds_it() -> None:
    assert NEW.startswith(f"{ETC}/before-renewal-")


async def test_growth_makes_no_certificate_and_no_record_anew() -> None:
    one, three = cluster(1), cluster(3)
    good = f"    DNS:{NAME}, DNS:localhost, IP Address:127.0.0.1, IP Address:10.9.0.1\n"
    assert await CertificateNames(three, three.hosts[0]).check(certified(good)) is None  # type: ignore[arg-type]
    assert names_of(one) == names_of(three)
