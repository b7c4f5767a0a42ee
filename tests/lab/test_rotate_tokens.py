"""The key that signs tokens is replaced on three control planes: killed and gone back, held for a Secret, ended.

Of the lab's 1.20, where every pod mounts a token that is a Secret: none waits for a kubelet. A GPU pod runs in one
container through all of it, and no kubelet is restarted.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.conftest import STATE, Site
from tests.lab.several_planes import ADMIN, PLANES, bare_hosts, changes, command, drift, hold, holds, nodes
from tests.lab.test_rotate_other_ca import VERB, codes, count, kill_when, kubectl, pids, rotate

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
NAMES, WORKER, OF = (*PLANES, "w1"), "w1", "service-accounts"
PKI = "/etc/kubernetes/pki"
PUBLIC, FOLDER = f"{PKI}/sa.pub", f"{PKI}/shipway-sa"
KEPT = "/root/kept-token"  # one that somebody has copied out of a Secret
TYPED = '{.items[?(@.type=="kubernetes.io/service-account-token")].metadata.name}'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three control planes and a worker in a lab of their own."""
    with bare_hosts(tmp_path_factory.mktemp("tokens"), 11, NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def holder(site: Site) -> str:
    """The cluster, with a pod that holds a GPU."""
    ran = site.run(seconds=1200)
    assert ran.code == 0, ran.output
    return hold(site, "cp1")


def published(site: Site) -> list[int]:
    """Return how many keys each control plane's own API server says it takes tokens of."""
    texts = [kubectl(site, f"--server {url(site, host)} get --raw /openid/v1/jwks", host) for host in PLANES]
    return [len(json.loads(text)["keys"]) for text in texts]


def url(site: Site, host: str) -> str:
    """Return the address of a control plane's own API server."""
    return f"https://{site.lab.plan.host(host).address}:6443"


def keep(site: Site, secret: str) -> None:
    """Copy the token of a Secret of the namespace `default` to every control plane, as its holder has it."""
    get = f"kubectl --kubeconfig {ADMIN} get secret {secret} -o jsonpath='{{.data.token}}' | base64 -d"
    for host in PLANES:
        site.on(host, f"{get} > {KEPT}")


def answers(site: Site) -> list[str]:
    """Return what each control plane's API server answers to that copy."""
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}' -H \"Authorization: Bearer $(cat {KEPT})\""
    return [site.on(host, f"{ask} {url(site, host)}/api").strip() for host in PLANES]


def secret_of(site: Site) -> str:
    """Return the Secret that pods of the namespace `default` mount."""
    return kubectl(site, f"get secrets -o jsonpath='{TYPED}'").split()[0]


def sum_of(site: Site, path: str) -> set[str]:
    """Return the digests of a file on all control planes."""
    return {site.on(host, f"sha256sum < {path}").strip() for host in PLANES}


def test_a_plan_names_who_holds_a_token_and_changes_nothing(site: Site, holder: str) -> None:
    assert codes(command(site, VERB, "--of", OF, "--plan")) == {"SHW-789"}
    assert command(site, "backup").code == 0
    before = {host: site.on(host, STATE) for host in NAMES}
    foreseen = command(site, VERB, "--of", OF, "--plan")
    assert (foreseen.code, foreseen.report["outcome"]) == (0, "planned"), foreseen.output
    assert any(secret_of(site) in said for said in foreseen.report["warnings"])
    rows = [
        (one["host"], row) for one in foreseen.report["stages"] for row in one["rows"] if row["outcome"] == "drifted"
    ]
    assert {host for host, row in rows if row["step"] == "kube-apiserver uses its current certificates"} == set(PLANES)
    assert not [host for host, _ in rows if host == WORKER]
    assert {host: site.on(host, STATE) for host in NAMES} == before
    assert holds(site, "cp1") == holder


def test_one_that_was_killed_goes_back_and_no_token_was_refused(site: Site, holder: str) -> None:
    before = sum_of(site, PUBLIC)
    keep(site, secret_of(site))
    kill_when(site, "cp2", f"[ $(grep -c BEGIN {PUBLIC}) = 2 ]", OF)
    assert "SHW-856" in codes(command(site, VERB, "--of", "front-proxy", "--plan"))
    rests = rotate(site, OF, "--until", "trust")
    assert (rests.code, rests.report["errors"]) == (0, []), rests.output
    assert (count(site, PUBLIC), published(site), answers(site)) == (["2"] * 3, [2] * 3, ["200"] * 3)
    back = rotate(site, OF, "--back")
    assert (back.code, back.report["errors"]) == (0, []), back.output
    assert (sum_of(site, PUBLIC), published(site), answers(site)) == (before, [1] * 3, ["200"] * 3)
    assert not [host for host in PLANES if site.holds(host, f"[ -e {FOLDER} ]")]
    assert drift(site)["findings"] == []
    assert holds(site, "cp1") == holder


def test_the_key_is_replaced_and_a_secret_of_others_holds_it_until_its_owner_renewed_it(
    site: Site, holder: str
) -> None:
    kubelets, secret = pids(site), secret_of(site)
    assert command(site, "backup").code == 0
    rests = rotate(site, OF, "--until", "certificates")
    assert (rests.code, rests.report["errors"]) == (2, []), rests.output
    assert any(f"default/{secret}" in said for said in rests.report["warnings"])
    assert not any("kube-system/" in said for said in rests.report["warnings"])  # these were signed anew
    assert (count(site, PUBLIC), published(site), answers(site)) == (["2"] * 3, [2] * 3, ["200"] * 3)
    again = rotate(site, OF)
    assert (again.code, count(site, PUBLIC)) == (2, ["2"] * 3), again.output
    kubectl(site, f"""patch secret {secret} --type json -p '[{{"op":"remove","path":"/data/token"}}]'""")
    keep(site, secret)
    assert command(site, "backup").code == 0  # beside two keys
    kill_when(site, "cp1", f"[ $(grep -c BEGIN {PUBLIC}) = 1 ]", OF)
    assert "SHW-857" in codes(rotate(site, OF, "--back"))
    ended = rotate(site, OF)
    assert (ended.code, ended.report["errors"]) == (0, []), ended.output
    assert (count(site, PUBLIC), published(site), answers(site)) == (["1"] * 3, [1] * 3, ["200"] * 3)
    assert (len(sum_of(site, PUBLIC)), len(sum_of(site, f"{PKI}/sa.key"))) == (1, 1)
    for host in PLANES:
        assert not site.holds(host, f"[ -e {FOLDER} ]")
        modes = site.on(host, "stat -c '%a %U' /etc/kubernetes/before-renewal-sa-*/*").splitlines()
        assert set(modes) == {"600 root"}
    assert nodes(site, "cp3") == dict.fromkeys(NAMES, True)
    assert pids(site) == kubelets
    assert holds(site, "cp1") == holder
    line = site.on("cp1", f"sed -n 3p {PKI}/sa.key").strip()
    places = (str(site.folder / "prefect"), str(site.folder / "controller"))
    found = subprocess.run(("grep", "-rlF", "--", line, *places), check=False, capture_output=True, text=True)
    assert found.stdout == ""  # neither Prefect's database nor a log of this machine has the key
    done = rotate(site, OF)
    assert (done.code, changes(done)) == (0, [])
    assert command(site, "backup").code == 0
    assert site.run(seconds=600).report["errors"] == []
    assert (drift(site)["findings"], drift(site)["errors"]) == ([], [])
