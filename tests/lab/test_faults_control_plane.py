"""Real faults on the control plane's host: each is named with its code, and the plain run after it ends ok."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Site
from tests.lab.faulting import error_of, first, hosts, meanwhile, ready, then, tries

pytestmark = pytest.mark.lab
LONG = pytest.mark.lab_long
TAKEN = "TCP port 6443 is taken by another server before the run"
FORBIDDEN = "the apt mirror answers everything with 403"
CA = "sha256sum /etc/kubernetes/pki/ca.crt"
LISTEN = ("systemd-run", "--quiet", "--collect", "--unit=other-server", "python3", "-m", "http.server", "6443")


@pytest.fixture(scope="module")
def site(site: Site) -> Site:
    """A control plane alone."""
    hosts(site, "cp1")
    return site


@pytest.fixture(autouse=True)
def mended(site: Site) -> Iterator[None]:
    """Leave the mirror in order, whatever became of the test."""
    yield
    site.lab.mirror().serve()
    site.lab.mirror().images(up=True)


def whole(site: Site, fault: str) -> None:
    """Run plainly, and see that all is well."""
    ran = site.run()
    then(fault, ran)
    assert (ran.code, ran.report["outcome"]) == (0, "ok")
    assert ready(site, "cp1")


def test_a_port_that_is_taken_is_named_before_anything_is_changed(site: Site) -> None:
    site.lab.exec("cp1", *LISTEN)
    try:
        ran = site.run()
    finally:
        site.on("cp1", "systemctl stop other-server")
    first(TAKEN, ran, "the other server is stopped")
    error = error_of(ran, "cp1")
    assert (ran.code, ran.report["outcome"], error["code"], error["retryable"]) == (1, "refused", "SHW-474", False)
    assert "6443" in error["cause"]
    assert "python3" in error["cause"]
    assert ran.host("cp1")["steps"]["changed"] == 0


def test_a_mirror_that_refuses_everything_is_named_at_its_first_request(site: Site) -> None:
    site.lab.mirror().answer(403)  # preflight cannot see it: a bare host has no curl
    ran = site.run()
    first(FORBIDDEN, ran, "the mirror serves again")
    error = error_of(ran, "cp1")
    assert (ran.code, ran.report["outcome"], error["code"], error["retryable"]) == (3, "failed", "SHW-407", False)
    assert "172.30.0.5" in error["cause"]
    assert tries(ran, "cp1", "prepare_system") == 1
    assert ran.host("cp1")["steps"]["changed"] == 0


@LONG
def test_once_port_and_mirror_are_right_the_plain_run_ends_ok(site: Site) -> None:
    whole(site, TAKEN)
    site.fresh("cp1")
    whole(site, FORBIDDEN)


@LONG
def test_a_port_that_is_taken_in_the_middle_is_named_by_kubeadms_error(site: Site) -> None:
    fault = "TCP port 6443 is taken in the middle of the run, before kubeadm init"
    site.fresh("cp1")
    with meanwhile(lambda: site.holds("cp1", "[ -e /usr/bin/kubeadm ]"), lambda: site.lab.exec("cp1", *LISTEN)):
        ran = site.run()
    site.on("cp1", "systemctl stop other-server")
    first(fault, ran, "the other server is stopped")
    error = error_of(ran, "cp1")
    assert (ran.code, ran.report["outcome"], error["code"]) == (3, "failed", "SHW-474")
    assert tries(ran, "cp1", "control_plane") == 1
    whole(site, fault)


PULLED = "ctr -n k8s.io images ls -q 2>/dev/null | grep -q kube-"


@LONG
def test_a_registry_that_is_down_in_the_middle_of_the_pulls_is_tried_again_and_named(site: Site) -> None:
    fault = "the registry is down from the middle of kubeadm init's image pulls"
    site.fresh("cp1")
    with meanwhile(lambda: site.holds("cp1", PULLED), lambda: site.lab.mirror().images(up=False)):
        ran = site.run()
    site.lab.mirror().images(up=True)
    first(fault, ran, "the registry is up again")
    error = error_of(ran, "cp1")
    assert (ran.code, ran.report["outcome"], error["code"], error["retryable"]) == (3, "failed", "SHW-441", True)
    assert tries(ran, "cp1", "control_plane") == 3
    whole(site, fault)


@LONG
def test_a_registry_that_comes_back_in_the_middle_of_the_pulls_is_not_noticed(site: Site) -> None:
    fault = "the registry is down for 4 s in the middle of kubeadm init's image pulls"
    site.fresh("cp1")

    def short() -> None:
        site.lab.mirror().images(up=False)
        time.sleep(4)
        site.lab.mirror().images(up=True)

    with meanwhile(lambda: site.holds("cp1", PULLED), short):
        ran = site.run()
    first(fault, ran, "the run goes on by itself", ("control_plane  failed",))
    assert (ran.code, ran.report["outcome"]) == (0, "ok")
    assert ready(site, "cp1")


@LONG
def test_containerd_stopped_in_the_middle_of_init_is_named_and_the_plain_run_completes_it(site: Site) -> None:
    fault = "containerd is stopped in the middle of kubeadm init"
    site.fresh("cp1")

    def stop() -> None:
        site.on("cp1", "systemctl stop containerd")

    with meanwhile(lambda: site.holds("cp1", "[ -e /etc/kubernetes/manifests/etcd.yaml ]"), stop):
        ran = site.run(seconds=900)
    first(fault, ran, "nobody does anything")
    error = error_of(ran, "cp1")
    assert (ran.code, ran.report["outcome"], error["code"]) == (3, "failed", "SHW-433")
    authority, data = site.on("cp1", CA), site.holds("cp1", "[ -d /var/lib/etcd/member ]")
    whole(site, fault)
    # Where etcd had not come as far as data, a control plane made anew loses nothing; else it must be the same one.
    assert not data or site.on("cp1", CA) == authority
