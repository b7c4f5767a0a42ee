"""This machine's kubeconfig leads to a control plane by its address, whoever wrote it last."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.simulated.kube.pki import Authority, kubeconfig
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.kube.access import ADMIN_CONF, parse_admin_conf
from tasks.certificates.stages import keep_renewed
from tasks.context import Run
from tasks.kubeconfig import LeadsToOneThatStays, keep_kubeconfig
from tests.ownership.test_leading import NAME, cluster, plane
from tests.places.facts import KnownFacts

OURS = Authority()


def admin_conf(server: str = f"https://{NAME}:6443") -> str:
    """Return an admin.conf of our cluster with a client certificate of its own."""
    return kubeconfig(server, OURS.certificate, "te", "admin", OURS.client("admin"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(cluster(3, f"state_dir: {tmp_path}\n"), "bootstrap")


def led_to(run: Run) -> tuple[str, str]:
    """Return where the kept kubeconfig leads, and whose certificate it holds."""
    kept = parse_admin_conf((run.folder / "kubeconfig").read_text(encoding="utf-8"))
    return kept.host, kept.certificate


async def test_a_renewal_keeps_a_kubeconfig_that_leads_to_an_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    host = KnownFacts({})
    monkeypatch.setattr(run, "session", lambda _: host)

    async def renewed(text: str) -> str:
        facts: dict[Fact[object], object] = {FileText(ADMIN_CONF): text}
        host.facts = facts
        return (await keep_renewed(run)).outcome

    assert await renewed(admin_conf()) == "ok"
    assert not (run.folder / "kubeconfig").exists()  # where no bootstrap kept one there is none to renew
    keep_kubeconfig(run, admin_conf(), "kept")
    for server in (f"https://{NAME}:6443", "https://127.0.0.1:6443"):
        new = admin_conf(server)
        assert [await renewed(new), await renewed(new)] == ["changed", "ok"]
        assert led_to(run) == ("10.9.0.1", parse_admin_conf(new).certificate)


def test_the_kubeconfig_of_another_whole_control_plane_stays_until_that_is_away(run: Run) -> None:
    first, second = admin_conf(), admin_conf()
    run.lead = "cp2"
    assert keep_kubeconfig(run, second, "kept").outcome == "changed"
    assert led_to(run)[0] == "10.9.0.2"
    run.lead, run.seen.elsewhere = "cp1", (plane("cp1"), plane("cp2"))
    assert keep_kubeconfig(run, first, "kept").outcome == "ok"
    run.seen.elsewhere = (plane("cp1"), plane("cp2", etcd=False))
    assert keep_kubeconfig(run, first, "kept").outcome == "changed"
    assert led_to(run)[0] == "10.9.0.1"


@pytest.mark.parametrize("vip", ["", ", api_vip: {address: 10.9.0.100}"])
def test_a_kubeconfig_that_leads_to_the_sites_load_balancer_stays_whoever_leads(tmp_path: Path, vip: str) -> None:
    more = f"kubernetes: {{api_endpoint: {{kind: external, name: lb.example, port: 7443}}{vip}}}\n"
    run = Run(cluster(3, f"state_dir: {tmp_path}\n{more}"), "bootstrap")
    run.seen.elsewhere = tuple(plane(name) for name in ("cp1", "cp2", "cp3"))
    run.lead = "cp1"
    first, second = admin_conf("https://lb.example:7443"), admin_conf("https://lb.example:7443")
    assert keep_kubeconfig(run, first, "kept").outcome == "changed"
    run.lead = "cp2"
    assert keep_kubeconfig(run, second, "kept").outcome == "ok"
    assert led_to(run) == ("lb.example", parse_admin_conf(first).certificate)
    assert keep_kubeconfig(run, second, "kept", renewed=True).outcome == "changed"
    (run.folder / "kubeconfig").write_text(admin_conf("https://10.9.0.1:6443"))  # from before it was moved there
    assert keep_kubeconfig(run, second, "kept").outcome == "changed"


async def test_a_kubeconfig_that_leads_to_one_that_leaves_is_led_to_one_that_stays(run: Run) -> None:
    api = SimpleNamespace(admin_conf=admin_conf())
    run.lead, run.retirement.host = "cp1", "cp3"
    run.seen.elsewhere = tuple(plane(name) for name in ("cp1", "cp2", "cp3"))
    step = LeadsToOneThatStays(run)
    assert await step.check(api) is None  # type: ignore[arg-type]
    for lead in ("cp2", "cp3"):
        run.lead, run.retirement.host = lead, ""
        (run.folder / "kubeconfig").unlink(missing_ok=True)
        keep_kubeconfig(run, admin_conf(), "kept")
        run.lead, run.retirement.host = "cp1", "cp3"
        assert (await step.check(api) is not None) is (lead == "cp3")  # type: ignore[arg-type]
    await step.apply(api)  # type: ignore[arg-type]
    assert led_to(run)[0] == "10.9.0.1"
    assert await step.check(api) is None  # type: ignore[arg-type]
