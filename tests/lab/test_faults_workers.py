"""Real faults on workers and what they depend on: the run goes on by itself where it can; else the plain one does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.conftest import Ran, Site
from tests.lab.faulting import bare, error_of, first, held, hosts, meanwhile, progress, ready, then, tries

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
JOINING = "[ -e /etc/kubernetes/bootstrap-kubelet.conf ]"
JOIN_FILE = "[ -e /run/shipway/kubeadm-join.yaml ]"


@pytest.fixture(scope="module")
def site(site: Site) -> Site:
    """A cluster that w2 is about to join, again and again."""
    hosts(site, "cp1", "w1", "w2")
    assert site.run().code == 0
    return site


@pytest.fixture(autouse=True)
def bare_again(site: Site) -> Iterator[None]:
    """Begin with a bare w2, and leave the mirror in order."""
    bare(site, "w2")
    yield
    site.lab.mirror().serve()
    site.lab.mirror().images(up=True)


def whole(site: Site, fault: str) -> Ran:
    """Run plainly, and see that all is well."""
    ran = site.run()
    then(fault, ran)
    assert (ran.code, ran.report["outcome"]) == (0, "ok")
    assert ready(site, "cp1", "w1", "w2")
    return ran


def by_itself(site: Site, fault: str, ran: Ran, lines: tuple[str, ...] = (), how: str = "goes on by itself") -> None:
    """See that the run itself ended well, and that a plain one after it has nothing to do."""
    first(fault, ran, f"the same run {how}", lines)
    assert (ran.code, ran.report["outcome"]) == (0, "ok")
    assert ready(site, "cp1", "w1", "w2")
    again = whole(site, fault)
    assert all(host["steps"]["changed"] == 0 for host in again.report["hosts"])


def partial(ran: Ran, code: str, stage: str, times: int) -> None:
    """See that w2 alone failed, in this stage, with this code, after so many tries."""
    assert (ran.code, ran.report["outcome"]) == (2, "partial")
    assert error_of(ran, "w2")["code"] == code
    assert tries(ran, "w2", stage) == times
    assert {error["host"] for error in ran.report["errors"]} == {"w2"}


SOURCE = "[ -e /etc/apt/sources.list.d/shipway-base.list ]"
DPKG = "/var/lib/dpkg/lock-frontend"


@pytest.mark.parametrize(
    ("what", "file", "moment", "seconds"),
    [
        ("dpkg's lock is held for 60 s", DPKG, SOURCE, 60),
        ("the lock of apt's lists is held for 60 s", "/var/lib/apt/lists/lock", SOURCE, 60),
        ("dpkg's lock is held for 30 s when apt has just installed containerd", DPKG, "[ -e /usr/bin/containerd ]", 30),
    ],
    ids=["dpkg", "lists", "apt-mark"],
)
def test_a_lock_of_another_package_manager_is_waited_for(
    site: Site, what: str, file: str, moment: str, seconds: int
) -> None:
    with meanwhile(lambda: site.holds("w2", moment), lambda: held(site, "w2", file, seconds)):
        ran = site.run()
    assert ran.host("w2")["seconds"] > seconds
    lines = tuple(progress("w2", stage, "changed in") for stage in ("prepare_system", "container_runtime"))
    by_itself(site, f"{what} by another program of w2", ran, lines, "waits and goes on by itself")


def test_a_mirror_that_is_out_of_order_is_tried_again_and_named(site: Site) -> None:
    fault = "the apt mirror answers with 503"
    site.lab.mirror().answer(503)
    ran = site.run()
    site.lab.mirror().serve()
    first(fault, ran, "the mirror serves again")
    partial(ran, "SHW-422", "prepare_system", 3)
    whole(site, fault)


def test_a_mirror_that_recovers_soon_is_not_noticed(site: Site) -> None:
    fault = "the apt mirror answers with 503 until the first try has failed"
    site.lab.mirror().answer(503)

    def back() -> None:
        time.sleep(1)  # the first try has failed, the next one comes two seconds later
        site.lab.mirror().serve()

    with meanwhile(lambda: _tried(site), back):
        ran = site.run()
    assert tries(ran, "w2", "prepare_system") > 0
    by_itself(site, fault, ran, (progress("w2", "prepare_system", "failed in"),), "tries again and goes on by itself")


def test_a_mirror_that_refuses_packages_after_503_is_not_tried_again(site: Site) -> None:
    fault = "the apt mirror answers with 503, then with 403"
    site.lab.mirror().answer(503)

    def forbid() -> None:
        time.sleep(1)
        site.lab.mirror().answer(403)

    with meanwhile(lambda: _tried(site), forbid):
        ran = site.run()
    site.lab.mirror().serve()
    first(fault, ran, "the mirror serves again")
    assert (ran.code, error_of(ran, "w2")["code"], error_of(ran, "w2")["retryable"]) == (2, "SHW-407", False)
    assert tries(ran, "w2", "prepare_system") == 2
    whole(site, fault)


def _tried(site: Site) -> bool:
    """Tell whether apt of w2 has asked the mirror for something."""
    address = site.lab.plan.host("w2").address
    return any(line.startswith(f"{address} ") and "APT" in line for line in site.lab.mirror().asked())


def test_swap_is_turned_off(site: Site) -> None:
    fault = "swap is on"
    site.lab.swap("w2", on=True)
    ran = site.run()
    by_itself(site, fault, ran, ("changed: swap", "changed: no swap"), "turns it off for good")
    assert site.on("w2", "tail -n +2 /proc/swaps") == ""


def test_swap_that_comes_on_in_the_middle_is_named_and_the_plain_run_turns_it_off(site: Site) -> None:
    fault = "swap comes on in the middle of the run, before kubeadm join"
    with meanwhile(lambda: site.holds("w2", "[ -e /usr/bin/kubeadm ]"), lambda: site.lab.swap("w2", on=True)):
        ran = site.run()
    first(fault, ran, "nobody does anything")
    partial(ran, "SHW-475", "join_worker", 1)
    whole(site, fault)


def test_a_kubelet_that_is_killed_is_started_again(site: Site) -> None:
    fault = "the kubelet is killed (SIGKILL) in the middle of kubeadm join"
    kill = "systemctl kill --signal=KILL kubelet"
    running = f"{JOINING} && systemctl is-active -q kubelet"
    with meanwhile(lambda: site.holds("w2", running), lambda: site.on("w2", kill)):
        ran = site.run()
    by_itself(
        site, fault, ran, (progress("w2", "join_worker", "changed in"),), "goes on by itself: systemd starts it again"
    )


def _paused(site: Site) -> None:
    site.lab.pause("w2")
    time.sleep(60)
    site.lab.unpause("w2")


@pytest.mark.parametrize(
    ("moment", "test"),
    [("of its preparation", "[ -e /etc/containerd/config.toml ]"), ("of kubeadm join", JOINING)],
)
def test_a_host_that_hangs_for_a_minute_goes_on(site: Site, moment: str, test: str) -> None:
    fault = f"w2 is paused for 60 s in the middle {moment}"
    with meanwhile(lambda: site.holds("w2", test), lambda: _paused(site)):
        ran = site.run()
    stages = ("container_runtime", "nvidia_runtime", "kubernetes_packages", "join_worker")
    lines = tuple(progress("w2", stage, text) for stage in stages for text in ("failed in", "changed in", "the host"))
    by_itself(site, fault, ran, lines)


def test_a_host_that_restarts_in_the_middle_of_its_join_is_waited_for(site: Site) -> None:
    fault = "w2 restarts in the middle of kubeadm join"
    with meanwhile(lambda: site.holds("w2", JOINING), lambda: site.lab.reboot("w2")):
        ran = site.run()
    lines = tuple(progress("w2", "join_worker", text) for text in ("failed in", "the host", "changed in", "ok in"))
    by_itself(site, fault, ran, lines, "waits for the host and goes on by itself")
    assert not site.holds("w2", JOINING), "a token is left on the host"


@pytest.mark.parametrize("times", [1, 4])
def test_an_api_server_that_is_killed_while_hosts_join_is_waited_for(site: Site, times: int) -> None:
    fault = f"the API server is killed {'once' if times == 1 else f'{times} times'} while w1 and w2 join"
    bare(site, "w1")
    with meanwhile(lambda: site.holds("w2", JOIN_FILE), _kills(site, times)):
        ran = site.run()
    by_itself(site, fault, ran, ("join_worker          failed", "join_worker          changed in"))


def _kills(site: Site, times: int) -> Callable[[], None]:
    """Return what kills the API server, again each time that it has come back."""

    def kill() -> None:
        for _ in range(times):
            site.on("cp1", "until pid=$(pidof kube-apiserver); do sleep 0.2; done; kill -9 $pid; sleep 1")

    return kill


TOKENS = """#!/bin/sh
# A stand-in: tokens of w1 were never made, tokens of w2 have expired.
case "$*" in
    "token create "*"join of w1"*) echo abcdef.0123456789abcdef ;;
    "token create "*"join of w2"*)
        token=$(/usr/bin/kubeadm token create --kubeconfig /etc/kubernetes/admin.conf --ttl 1s)
        sleep 5
        echo "$token" ;;
    *) exec /usr/bin/kubeadm "$@" ;;
esac
"""


def test_wrong_and_expired_tokens_are_named_and_the_plain_run_makes_new_ones(site: Site) -> None:
    bare(site, "w1")
    wrong, expired = "w1 joins with a token that was never made", "w2 joins with a token that has expired"
    site.lab.exec("cp1", "sh", "-c", "cat > /usr/local/sbin/kubeadm; chmod 755 /usr/local/sbin/kubeadm", give=TOKENS)
    try:
        ran = site.run(seconds=900)
    finally:
        site.on("cp1", "rm /usr/local/sbin/kubeadm")
    assert {error["host"]: error["code"] for error in ran.report["errors"]} == {"w1": "SHW-478", "w2": "SHW-478"}
    assert (ran.code, tries(ran, "w1", "join_worker"), tries(ran, "w2", "join_worker")) == (2, 3, 3)
    again = site.run()
    for fault, host in ((wrong, "w1"), (expired, "w2")):
        ran.report["errors"], errors = [e for e in ran.report["errors"] if e["host"] == host], ran.report["errors"]
        first(fault, ran, "`kubeadm token create` gives real tokens again")
        ran.report["errors"] = errors
        then(fault, again)
    assert (again.code, ready(site, "w1", "w2")) == (0, True)
    assert "join of" not in site.on("cp1", "kubeadm token list")


def test_a_registry_that_is_down_for_a_minute_delays_the_nodes_pods_only(site: Site) -> None:
    fault = "the registry is down for 60 s while w2's pods are pulled"

    def minute() -> None:
        site.lab.mirror().images(up=False)
        time.sleep(60)
        site.lab.mirror().images(up=True)

    with meanwhile(lambda: site.holds("w2", JOINING), minute):
        ran = site.run()
    by_itself(site, fault, ran, ("every node is Ready",), "waits and goes on by itself")
