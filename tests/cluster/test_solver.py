"""The solver refuses what cannot work and warns of what should not stay; its tables answer by version."""

from __future__ import annotations

import re
from datetime import date, datetime, tzinfo
from pathlib import Path

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster, parse_cluster
from shipway.errors import Refused
from shipway.rules import compatibility as known
from shipway.rules import solver
from shipway.rules.files import secret_places
from shipway.rules.solver import REFUSALS, WARNINGS, warnings_of

TODAY = date(2026, 11, 23)


def accepted(text: str = "", hosts: int = 1) -> Cluster:
    addresses = ", ".join(f"10.{number // 200}.7.{1 + number % 200}" for number in range(hosts))
    return parse_cluster(f"name: demo\nhosts: [{addresses}]\n{text}")


def refused(text: str, hosts: int = 1) -> str:
    with pytest.raises(Refused) as raised:
        accepted(text, hosts)
    return raised.value.message


def warned(text: str, today: date = TODAY) -> str:
    return "\n".join(warnings_of(accepted(text), today))


SEED_NETWORK = "kubernetes: {pod_network: 10.244.64.0/20, node_mask: %d}\n"


def test_the_guides_network_holds_sixteen_nodes_and_no_more() -> None:
    accepted(SEED_NETWORK % 24, hosts=16)
    assert "node_mask 25 would fit (126 pods a node)" in refused(SEED_NETWORK % 24, hosts=17)
    accepted(SEED_NETWORK % 25, hosts=17)


def test_a_network_that_no_mask_saves_must_be_larger() -> None:
    text = "kubernetes: {pod_network: 10.244.64.0/24, node_mask: 26}\n"
    assert "a larger pod network is needed" in refused(text, hosts=40)


def test_overlaps_are_reported_from_either_side() -> None:
    assert "overlaps the service network" in refused("kubernetes: {service_network: 10.244.0.0/16}\n")
    assert "the service network 10.0.0.0/12 holds the address of host-10-0-7-1" in refused(
        "kubernetes: {service_network: 10.0.0.0/12}\n"
    )
    assert "10.96.0.9 lies in the service network" in refused("kubernetes: {api_endpoint: 10.96.0.9}\n")


def test_the_address_of_the_only_control_plane_may_be_the_endpoint() -> None:
    assert accepted("kubernetes: {api_endpoint: 10.0.7.1}\n").endpoint == "10.0.7.1:6443"


def test_calico_blocks_lie_in_the_pod_network() -> None:
    assert "/20 is larger than the pod network" in refused(
        "kubernetes: {pod_network: 10.244.0.0/22}\nnetwork: {block_size: 20}\n"
    )


def test_versions_that_cannot_speak_are_refused() -> None:
    old = "kubernetes: {version: 1.22.17}\nruntime: {version: %s}\n"
    assert "speaks only CRI v1" in refused(old % "2.1.0")
    accepted(old % "1.7.27")
    accepted(old % '"1"')
    assert "has no CRI v1" in refused("runtime: {version: 1.5.18}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runtime: {version: 1.7.27}\n", "take 2.0 or later, or set gpu.mode: runtime_class"),
        ("runtime: {version: null}\n", "gpu.mode cdi needs containerd 2.0 or later, so name one"),
        ("kubernetes: {version: 1.28.15}\nruntime: {version: 2.1.0}\n", "1.28.15 hands no CDI devices to containerd"),
        ("device_plugin: {version: 0.15.1}\n", "device_plugin.version: 0.15.1 cannot name that program"),
    ],
)
def test_gpus_by_cdi_need_parts_that_know_it(text: str, said: str) -> None:
    assert said in refused("gpu: {mode: cdi}\n" + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kubernetes: {version: 1.33.5}\n", "1.33.5 is too old for GPUs by claims (resource.k8s.io/v1); take 1.34.2"),
        ("kubernetes: {version: 1.34.1}\n", "1.34.1 is too old for GPUs by claims"),
        ("runtime: {version: 1.7.27}\n", "containerd 1.7.27 puts no GPU into a container"),
        ("runtime: {version: null}\n", "gpu.mode dra needs containerd 2.0 or later, so name one"),
        (
            "gpu: {driver: {source: cuda, branch: 550}}\n",
            "gpu.driver: 550 is older than NVIDIA's driver of claims needs",
        ),
        (
            "gpu: {classes: {a: {sharing: exclusive}}}\n",
            "gpu.classes: is for the device plugin; gpu.mode dra gives whole",
        ),
        ("gpu: {classes: {a: {sharing: exclusive}}, sharing: a}\n", "gpu.sharing: is for the device plugin"),
    ],
)
def test_gpus_by_claims_need_parts_that_know_them_and_are_whole(text: str, said: str) -> None:
    assert said in refused(
        text.replace("gpu: {", "gpu: {mode: dra, ") if "gpu:" in text else f"gpu: {{mode: dra}}\n{text}"
    )


def test_a_host_shares_no_gpus_that_are_claimed() -> None:
    text = "profile: current\ngpu: {mode: dra}\nhosts: [{address: 10.0.0.1, gpu_class: shared}]\n"
    with pytest.raises(Refused, match="gpu_class: is for the device plugin"):
        parse_cluster(f"name: demo\n{text}")


def test_gpus_are_claimed_on_a_current_cluster() -> None:
    assert accepted("gpu: {mode: dra}\n").gpu.mode == "dra"
    assert "the name dra is taken" in refused("gpu: {classes: {dra: {sharing: exclusive}}}\n")


def test_an_old_toolkit_has_no_program_for_cdi() -> None:
    assert "1.15.0 has no program for CDI; take 1.16 or later" in refused("gpu: {mode: cdi, toolkit: 1.15.0}\n")
    accepted("gpu: {mode: cdi}\n")


@pytest.mark.parametrize(
    "text",
    [
        "gpu: {mode: cdi, toolkit: 1.16.0}\n",
        "gpu: {mode: cdi, toolkit: null}\n",
        "gpu: {mode: cdi}\nruntime: {version: '2.0'}\n",
        "gpu: {mode: cdi}\ndevice_plugin: {version: 0.16.0}\n",
        "gpu: {mode: cdi}\nkubernetes: {version: 1.29.0}\n",
        "gpu: {mode: dra}\nkubernetes: {version: 1.34.2}\n",
        "gpu: {mode: dra, driver: {source: cuda, branch: 565}}\n",
        "gpu: {mode: dra, driver: {source: cuda, version: '580.95.05'}}\n",
    ],
)
def test_the_oldest_parts_that_hand_gpus_on_by_themselves_are_accepted(text: str) -> None:
    accepted(text)


def test_an_old_driver_of_a_named_version_is_none_for_claims() -> None:
    said = refused("gpu: {mode: dra, driver: {source: cuda, version: '550.90.07'}}\n")
    assert "gpu.driver: 550.90.07 is older than NVIDIA's driver of claims needs" in said


@pytest.mark.parametrize("mode", ["cdi", "dra"])
def test_where_no_host_has_gpus_nothing_is_asked_of_what_would_hand_them_on(mode: str) -> None:
    text = f"gpu: {{mode: {mode}}}\nruntime: {{version: 1.7.27}}\n"
    parse_cluster(f"name: demo\nhosts: [{{name: a, address: 10.0.0.1, gpus: 0}}]\n{text}")


BASE = "sources: {base_apt: {uri: 'http://m', key: {path: /k}, %s}}\n"


@pytest.mark.parametrize(
    ("gpus", "sources", "lacks"),
    [
        ("1", BASE % "suite: bookworm, components: [main]", "has no contrib, non-free: Debian's driver comes from it"),
        ("1", BASE % "suite: bookworm, components: [main, contrib]", "has no non-free: Debian's driver comes from it"),
        ("1", BASE % "suite: bookworm, components: [main, contrib, non-free]", ""),
        ("1", BASE % "suite: ./", ""),  # a flat one has none to name
        ("1", "", ""),
        ("0", BASE % "suite: bookworm, components: [main]", ""),
    ],
)
def test_debians_driver_needs_all_components_of_a_mirror_in_its_place(gpus: str, sources: str, lacks: str) -> None:
    text = f"name: demo\nhosts: [{{name: a, address: 10.0.0.1, gpus: {gpus}}}]\n"
    text += f"gpu: {{driver: {{source: debian, branch: 535}}}}\n{sources}"
    if not lacks:
        parse_cluster(text)
        return
    with pytest.raises(Refused) as raised:
        parse_cluster(text)
    assert lacks in raised.value.message


def test_a_driver_of_nvidias_repository_needs_it_named_and_no_other_driver_does() -> None:
    named = "{uri: 'http://m', suite: /, key: {path: /k}}"
    sources = "".join(f"{one}: {named}, " for one in ("docker", "kubernetes", "nvidia"))
    lab = f"profile: lab\nnetwork: {{manifests: [/n]}}\nsources: {{apt: {{{sources}}}}}\n"
    accepted(lab)
    driver = lab + "gpu: {driver: {source: cuda, branch: 580}}\n"
    assert "sources.apt.cuda: is missing: the GPUs' driver comes from it" in refused(driver)


@pytest.mark.parametrize(("toolkit", "fine"), [("1.17.8", True), ("1.18.0", False), ("1.18.1", True)])
def test_one_toolkit_is_broken(toolkit: str, *, fine: bool) -> None:
    text = f"gpu: {{toolkit: {toolkit}}}\n"
    if fine:
        accepted(text)
    else:
        assert "take 1.18.1 or later" in refused(text)


def test_another_calico_asks_for_its_own_manifests() -> None:
    said = refused("network: {version: 3.31.2}\n")
    assert "sources.manifests.tigera_operator.url (from the profile): is version 3.32.0" in said
    assert "sources.manifests.operator_crds.url (from the profile)" in said
    files = "sources: {manifests: {tigera_operator: {path: /t}, operator_crds: {path: /c}}}\n"
    accepted("network: {version: 3.31.2}\n" + files)


def test_only_gpu_hosts_need_nvidias_repository() -> None:
    lab = "profile: lab\nnetwork: {manifests: [/n]}\nsources: {apt: {docker: %(r)s, kubernetes: %(r)s}}\n" % {  # noqa: UP031
        "r": "{uri: 'http://m', suite: /, key: {path: /k}}"
    }
    assert "sources.apt.nvidia: is missing" in refused(lab)
    parse_cluster("name: demo\nhosts: [{name: a, address: 10.0.0.1, gpus: 0}]\n" + lab)


@pytest.mark.parametrize(
    ("today", "said"),
    [(date(2027, 1, 1), ""), (date(2027, 5, 15), "reaches its end"), (date(2027, 6, 28), "reached its end")],
)
def test_the_end_of_life_is_reported_by_the_day(today: date, said: str) -> None:
    found = warned("kubernetes: {version: 1.36.2}\n", today)
    assert (said in found) if said else (found == "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runtime: {version: 1.7.27}\n", "Kubernetes 1.36 deprecates containerd 1.x"),
        ("kubernetes: {version: 1.31.14}\nruntime: {version: 1.7.13}\n", "Kubernetes 1.31 wants 1.7.20 or later"),
        ("kubernetes: {version: 1.33.1}\n", "this Calico is tested on Kubernetes 1.34 to 1.36, not 1.33"),
        ("kubernetes: {allow_cgroup_v1: true}\n", "Kubernetes 1.36 gave cgroup v1 up"),
        ("kubernetes: {version: 1.34.9, allow_cgroup_v1: true}\n", "has no effect on Kubernetes 1.34"),
        ("gpu: {isolation: 'off'}\n", "a pod that asks for no GPU sees all of its host"),
        ("gpu: {toolkit: 1.17.8}\n", "gpu.toolkit 1.17.8 is old"),
        ("device_plugin: {version: 0.17.1}\n", "device_plugin.version 0.17.1 is old"),
        ("dashboard: {enabled: true, role: cluster-admin}\n", "archived upstream on 2026-01-21"),
        ("dashboard: {enabled: true, role: cluster-admin}\n", "from port 31000 of any node"),
        ("network: {provider: manifests, manifests: [/n]}\nkubernetes: {node_mask: 26}\n", "62 pod addresses"),
        ("kubernetes: {pod_network: 10.244.0.0/26, node_mask: 26}\n", "64 addresses for 1 hosts of up to 110 pods"),
        ("sources: {apt: {docker: {key: {fingerprint: null}}}}\n", "whatever key is served will be trusted"),
        ("runtime: {version: null}\n", "runtime.version is not pinned"),
    ],
)
def test_a_warning_says_what_should_not_stay(text: str, said: str) -> None:
    assert said in warned(text)


def test_a_cluster_without_gpus_is_warned_of() -> None:
    cluster = parse_cluster("name: demo\nhosts: [{name: a, address: 10.0.0.1, gpus: 0}]\n")
    assert warnings_of(cluster, TODAY) == ["hosts: every one is declared with gpus: 0, so no GPU can be proven"]


def test_an_add_on_without_a_folder_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Refused, match=r"addons\.nowhere: is no add-on; there are: .*node-problem-detector"):
        parse_cluster("name: demo\nhosts: [{name: a, address: 10.0.0.1}]\naddons: {nowhere: {}}\n")


def test_every_rule_has_a_title_of_its_own() -> None:
    titles = [rule.title for rule in REFUSALS] + [rule.title for rule in WARNINGS]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(
    ("version", "layout"),
    [("1.6.20~ds1-1+b1", 2), ("1.7.27", 2), ("2.0.0", 3), ("2.1.3-1", 3), ("2.2", 3), ("2.3.1", 4), ("5:3.0.0", 4)],
)
def test_containerds_layout_follows_its_version(version: str, layout: int) -> None:
    assert known.containerd_config_version(version) == layout


@pytest.mark.parametrize(
    ("minor", "api"), [(20, "v1beta2"), (21, "v1beta2"), (22, "v1beta3"), (30, "v1beta3"), (31, "v1beta4")]
)
def test_kubeadms_api_follows_the_minor(minor: int, api: str) -> None:
    assert known.kubeadm_api((1, minor)) == api


def test_taints_labels_and_manifests_follow_the_version() -> None:
    old, new = "node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"
    assert [known.control_plane_taints((1, minor)) for minor in (23, 24, 25)] == [(old,), (old, new), (new,)]
    assert [known.control_plane_labels((1, minor)) for minor in (23, 24)] == [(new, old), (new,)]
    assert known.calico_manifests("3.29.7") == ("tigera_operator",)
    assert known.calico_manifests("3.30.0") == ("operator_crds", "tigera_operator")
    assert [known.plugin_needs_gpu_selector(version) for version in ("0.17.4", "0.18.0")] == [False, True]
    assert [known.needs_cgroup_v2((1, minor)) for minor in (34, 35)] == [False, True]


def test_a_text_without_a_number_is_no_version() -> None:
    with pytest.raises(ValueError, match="'latest' is not a version"):
        known.triple("latest")


def test_every_known_kubernetes_minor_but_the_newest_has_an_end() -> None:
    minors = range(known.OLDEST_KUBERNETES[1], known.NEWEST_KUBERNETES[1])
    assert [minor for minor in minors if (1, minor) not in known.KUBERNETES_END] == []


# --- each rule with what is just refused and what is just accepted

PLACED = "name: demo\nhosts: [%s]\n%s"
FAR = "{name: a, address: 172.16.0.1}"
TWO = "{name: a, address: x.example, node_ip: 10.0.0.1, ssh: {%s}}, {name: b, address: %s, ssh: {%s}}"
BEHIND = "x.example, node_ip: 10.0.0.2"
OWN_NETWORK = "network: {provider: manifests, manifests: [/n], "
HALF_OF_ALL = "kubernetes: {pod_network: 10.0.0.0/8, service_network: 192.168.0.0/16, node_mask: %d}\n"


@pytest.mark.parametrize(
    ("hosts", "text", "said"),
    [
        ("{name: a, address: 10.0.0.1}, {name: a, address: 10.0.0.2}", "", "a is already the name of hosts[0]"),
        (
            TWO % ("", BEHIND.capitalize(), ""),
            "",
            "X.example port 22 is already the address of hosts[0]",
        ),
        (
            TWO % ("jump: {address: j.example, user: one}", BEHIND, "jump: {address: j.example, user: two}"),
            "",
            "x.example port 22 is already the address of hosts[0]",
        ),
        (
            TWO % ("", "y.example, node_ip: 10.0.0.1", ""),
            "",
            "hosts[1].node_ip: node address 10.0.0.1 is already that of hosts[0]",
        ),
        (
            "{name: a, address: x.example}, {name: b, address: y.example}",
            "",
            "hosts[1].address: y.example is no IPv4 address: say which one the node has",
        ),
        *(
            (f"{{name: a, address: x.example, node_ip: {one}}}", "", f"{one} cannot be a node's address")
            for one in ("224.0.0.1", "0.0.0.0", "169.254.1.1", "255.255.255.255")  # noqa: S104 - a fault
        ),
        ("{name: a, address: 10.0.0.1, roles: [worker]}", "", "no host has the role control_plane"),
        (
            ", ".join(
                f"{{name: {one}, address: 10.0.0.{at}, roles: [control_plane]}}" for at, one in enumerate("ab", 1)
            ),
            "",
            "2 control planes bear the loss of 0, as 1 do",
        ),
        (
            ", ".join(
                f"{{name: {one}, address: 10.0.0.{at}, roles: [control_plane]}}" for at, one in enumerate("abcdef", 1)
            ),
            "",
            "more than 5: 1, 3 or 5 are supported",
        ),
        ("{name: a, address: 10.0.0.1, roles: [control_plane, control_plane]}", "", "names a role twice"),
        (FAR, SEED_NETWORK % 19, "/19 is larger than the whole pod network 10.244.64.0/20; take 20 to 30"),
        (FAR, HALF_OF_ALL % 25, "/25 is more than 16 bits below 10.0.0.0/8; take at most 24"),
        (FAR, "kubernetes: {service_network: 10.96.0.0/11}\n", "10.96.0.0/11 is not between /12 and /29"),
        (FAR, "kubernetes: {service_network: 10.96.0.0/30}\n", "10.96.0.0/30 is not between /12 and /29"),
        (FAR, "kubernetes: {api_port: 10250}\n", "10250 is the port of the kubelet"),
        (FAR, "repair: {disturb: [a, b]}\n", "repair.disturb[1]: no host b in this file; it has a"),
        (FAR, "kubernetes: {version: 1.19.16}\n", "1.19.16 is outside the known range 1.20 to 1.37"),
        (FAR, "kubernetes: {version: 1.38.0}\n", "1.38.0 is outside the known range 1.20 to 1.37"),
        (FAR, "kubernetes: {version: 1.26.15}\nruntime: {version: 1.5.18}\n", "containerd 1.5 has no CRI v1"),
        (FAR, "kubernetes: {version: 1.20.15}\nruntime: {version: 2.1.0}\n", "containerd 2.1 speaks only CRI v1"),
        (FAR, "kubernetes: {version: 1.22.17}\nruntime: {version: '2'}\n", "containerd 2.0 speaks only CRI v1"),
        (
            FAR,
            "kubernetes: {api_vip: {address: 127.0.0.1}}\n",
            "kubernetes.api_vip.address: 127.0.0.1 cannot be an address that clients reach",
        ),
        ("{name: a, address: 172.16.0.1, gpu_class: x}", "", "hosts[0].gpu_class: x is no class of gpu.classes"),
        (FAR, "backup: {s3: {bucket: backups-1}}\n", "backups hold all Secrets and keys of the cluster"),
        (
            FAR,
            "kubernetes: {version: 1.22.17}\nhardening: {pod_security: {enabled: true}}\n",
            "1.22.17 has no PodSecurity admission",
        ),
        (
            FAR,
            "kubernetes: {kubelet: {readOnlyPort: 10255}}\nhardening: {kubelet: {enabled: true}}\n",
            "is declared by hardening.kubelet as well",
        ),
        (FAR, "network: {manifests: [/n]}\n", "are only applied with provider `manifests`"),
        (FAR, "network: {provider: manifests}\n", "is empty: provider `manifests` needs at least one file"),
        (FAR, "network: {version: null}\n", "network.version: is missing: Calico needs one"),
        (FAR, "kubernetes: {kubelet: {cgroupDriver: cgroupfs}}\n", "is 'cgroupfs': containerd is set to systemd"),
        (FAR, "dashboard: {enabled: true, version: 2.6.0}\n", "is version 2.7.0, dashboard.version is 2.6.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(hosts: str, text: str, said: str) -> None:
    with pytest.raises(Refused) as raised:
        parse_cluster(PLACED % (hosts, text))
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (TWO % ("", BEHIND, "port: 2222"), ""),
        (TWO % ("jump: {address: j.example}", BEHIND, "jump: {address: k.example}"), ""),
        (FAR, SEED_NETWORK % 20),
        (FAR, HALF_OF_ALL % 24),
        (FAR, "kubernetes: {service_network: 10.96.0.0/29}\n"),
        (FAR, "kubernetes: {api_endpoint: 'api.example.com:6443'}\n"),
        (FAR, "kubernetes: {api_endpoint: '172.16.0.9:6443'}\n"),
        (FAR, "kubernetes: {pod_network: 10.244.0.0/22}\nnetwork: {block_size: 22}\n"),
        (FAR, f"kubernetes: {{pod_network: 10.244.0.0/22}}\n{OWN_NETWORK}block_size: 20}}\n"),
        (FAR, "repair: {disturb: [a]}\n"),
        (FAR, "runtime: {version: null}\n"),
        (FAR, "runtime: {version: '1'}\n"),
        (FAR, "runtime: {version: 1.6.39}\n"),
        (FAR, "kubernetes: {version: 1.25.16}\nruntime: {version: 1.5.18}\n"),
        (FAR, "kubernetes: {version: 1.23.17}\nruntime: {version: 2.1.0}\n"),
        (FAR, "gpu: {toolkit: null}\n"),
        (FAR, f"{OWN_NETWORK}version: 3.31.2}}\n"),
        (FAR, "kubernetes: {kubelet: {cgroupDriver: systemd}}\n"),
    ],
)
def test_what_just_works_is_accepted(hosts: str, text: str) -> None:
    parse_cluster(PLACED % (hosts, text))


def test_an_unknown_kubernetes_is_judged_by_nothing_else() -> None:
    with pytest.raises(Refused) as raised:
        parse_cluster(PLACED % (FAR, "kubernetes: {version: 1.19.16}\nruntime: {version: 2.1.0}\n"))
    assert "CRI" not in raised.value.message


def test_a_node_mask_that_leaves_fourteen_pods_a_node_is_still_advised() -> None:
    text = "kubernetes: {pod_network: 10.244.64.0/24, node_mask: 26}\n"
    assert "node_mask 28 would fit (14 pods a node)" in refused(text, hosts=16)
    assert "a larger pod network is needed" in refused(text, hosts=17)


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more")])
def test_of_many_hosts_in_a_network_five_are_named(count: int, more: str) -> None:
    said = refused("kubernetes: {service_network: 10.0.0.0/12}\n", hosts=count)
    assert f"host-10-0-7-5 (10.0.7.5){more}\n" in f"{said}\n"


def test_what_is_installed_from_a_manifest_names_it() -> None:
    sources = "sources: {apt: {docker: %(r)s, kubernetes: %(r)s, nvidia: %(r)s}}\n" % {  # noqa: UP031
        "r": "{uri: 'http://m', suite: /, key: {path: /k}}"
    }
    with pytest.raises(Refused) as raised:
        parse_cluster(PLACED % (FAR, "profile: lab\nnetwork: {provider: calico, version: 3.32.0}\n" + sources))
    for name in ("operator_crds", "tigera_operator"):
        assert f"sources.manifests.{name}: is missing: Calico 3.32.0 is installed from it" in raised.value.message
    text = "profile: lab\nnetwork: {manifests: [/n]}\ndashboard: {enabled: true}\n"
    with pytest.raises(Refused, match=r"sources\.manifests\.dashboard: is missing: the dashboard is installed from it"):
        parse_cluster(PLACED % (FAR, text + sources))


def test_every_end_is_judged_by_todays_date_where_no_other_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2027, 6, 28, tzinfo=tz)

    monkeypatch.setattr(solver, "datetime", Clock)
    assert any("reached its end" in one for one in warnings_of(accepted("kubernetes: {version: 1.36.2}\n")))


NAMED_FILES = """ssh: {key: FILE1, jump: {address: j.example, key: FILE2}}
proxy: {https: 'http://p.example:3128', credentials: FILE3}
network: {provider: manifests, manifests: [FILE4]}
sources:
  apt: {docker: {key: {path: FILE5, url: null, fingerprint: null}}}
  base_apt: {uri: 'http://m.example', suite: x, components: [main], key: {path: FILE6}}
  manifests: {tigera_operator: {path: FILE7, url: null, sha256: null}}
  registries: {r.example: {ca: FILE8, credentials: FILE9}}
"""
OWN_LOGIN = "{name: a, address: 172.16.0.1, ssh: {key: FILE10, jump: {address: k.example, key: FILE11}}}"
PLACES = (
    *("ssh.key", "ssh.jump.key", "proxy.credentials", "network.manifests[0]", "sources.apt.docker.key.path"),
    *("sources.base_apt.key.path", "sources.manifests.tigera_operator.path", "sources.registries.r.example.ca"),
    *("sources.registries.r.example.credentials", "hosts[0].ssh.key", "hosts[0].ssh.jump.key"),
)


def test_every_local_file_that_the_file_names_must_be_there_before_anything_begins(tmp_path: Path) -> None:
    text = PLACED % (OWN_LOGIN, NAMED_FILES)
    text = re.sub(r"FILE(\d+)", lambda match: str(tmp_path / match[1]), text)
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(Refused) as raised:
        load_cluster(path)
    assert f"{len(PLACES)} faults" in raised.value.message, raised.value.message
    for number, place in enumerate(PLACES, 1):
        reason = f"{tmp_path / str(number)} cannot be read: No such file or directory"
        assert f" {place}: {reason}" in raised.value.message
        (tmp_path / str(number)).touch(mode=0o600)
    assert secret_places(load_cluster(path)) == [str(tmp_path / "3"), str(tmp_path / "9")]
    (tmp_path / "9").chmod(0o640)
    with pytest.raises(Refused, match="may be read by others than its owner"):
        load_cluster(path)


def test_a_home_that_nobody_has_is_reported_as_any_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(PLACED % (FAR, "ssh: {key: ~nobody-of-this-name/key}\n"))
    with pytest.raises(Refused, match=r"ssh\.key: ~nobody-of-this-name/key cannot be read: Could not determine home"):
        load_cluster(path)
    assert secret_places(accepted()) == []
