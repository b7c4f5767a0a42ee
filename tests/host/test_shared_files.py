"""Files that other software and people write too: their lines survive, and a file that is not ours is left alone."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from shipway.edits.containerd import CONFIG, KEPT
from shipway.edits.lines import with_modules, with_sysctls
from shipway.errors import Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.kubeadm.config import CRI_SOCKET
from shipway.script import Output
from shipway.step import Drift
from shipway.steps.runtime.crictl import FILE as CRICTL
from shipway.steps.runtime.crictl import crictl_finds
from shipway.steps.runtime.pause_image import DUMP, SandboxImageAgrees
from shipway.steps.runtime.registry_files import RegistryHosts
from shipway.steps.system.kernel import NFT, ModulesAtBoot
from tasks.stages.prepare_system import BRIDGED, MODULES
from tests.places.facts import KnownFacts, said

BOOT = "/etc/modules-load.d/k8s.conf"
TOML = "/etc/containerd/certs.d/quay.io/hosts.toml"
THERE = FileInfo("0" * 64, "644", "root:root", 1)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", "net.ipv4.ip_forward = 1\nvm.swappiness = 0\n"),
        ("# site\nkernel.panic=10\n", "# site\nkernel.panic=10\nnet.ipv4.ip_forward = 1\nvm.swappiness = 0\n"),
        ("vm.swappiness=0\nnet/ipv4/ip_forward=1", "vm.swappiness=0\nnet/ipv4/ip_forward=1"),
        ("-vm.swappiness = 60\nnet.ipv4.ip_forward = 1\n", "-vm.swappiness = 0\nnet.ipv4.ip_forward = 1\n"),
        (
            "vm.swappiness\nnet.ipv4.ip_forward = 1\n",  # no assignment: systemd leaves it out, and so do we
            "vm.swappiness\nnet.ipv4.ip_forward = 1\nvm.swappiness = 0\n",
        ),
        ("net.ipv4.ip_forward=1\nvm.swappiness = 0\nnet.ipv4.ip_forward=0\n", None),
        ("#net.ipv4.ip_forward = 0\r\nvm.swappiness = 0\nnet.ipv4.ip_forward = 1\n", "SAME"),
    ],
)
def test_only_our_own_kernel_settings_change(text: str, after: str | None) -> None:
    values = {"net.ipv4.ip_forward": "1", "vm.swappiness": "0"}
    edited = with_sysctls(text, values)
    if after == "SAME":
        assert edited == text
    elif after is None:  # the last line of a key counts
        assert edited == "net.ipv4.ip_forward=1\nvm.swappiness = 0\nnet.ipv4.ip_forward = 1\n"
    else:
        assert edited == after
    assert with_sysctls(edited, values) == edited


def test_only_our_own_modules_change() -> None:
    text = "# ipvs of the site\nip_vs\nip_tables\noverlay"
    edited = with_modules(text, ["overlay", "br_netfilter"], ["ip_tables"])
    assert edited == "# ipvs of the site\nip_vs\noverlay\nbr_netfilter\n"
    assert with_modules(edited, ["overlay", "br_netfilter"], ["ip_tables"]) == edited
    assert with_modules("overlay", ["overlay"], []) == "overlay"


async def drifted(step: Any, host: KnownFacts) -> Drift | None:
    """Return the drift; after an apply what was written is what the host has."""
    found: Drift | None = await step.check(cast("Host", host))
    return found


async def applied(step: Any, host: KnownFacts) -> str:
    """Apply, and return what stands in the step's file then; a second look must see no drift."""
    drift = await drifted(step, host)
    assert drift is not None
    await step.apply(cast("Host", host))
    ((path, text),) = host.written.items()
    host.facts |= {FileText(path): text, FileState(path): THERE}
    return text


def has(*modules: str) -> dict[Any, Any]:
    """Return what modprobe of kmod 30 says on a kernel that has these modules alone."""
    words = "modprobe: FATAL: Module {} not found in directory /lib/modules/6.1.0-50-amd64\n"
    lacks = {one: Output(1, "", words.format(one)) for one in (*MODULES, *NFT) if one not in modules}
    return {Says(("modprobe", "-n", "--", one)): lacks.get(one, said("")) for one in (*MODULES, *NFT)}


@pytest.mark.parametrize(
    ("known", "named"),
    [
        ((*MODULES, *NFT), MODULES),
        (("overlay", "br_netfilter", *NFT), ("overlay", "br_netfilter", *NFT)),
        (("overlay", "br_netfilter", "nf_nat", *NFT[:2]), ("overlay", "br_netfilter", "nf_nat", *NFT[:2])),
        ((), ()),
    ],
)
async def test_no_module_that_the_kernel_lacks_is_named_for_the_boot(
    known: tuple[str, ...], named: tuple[str, ...]
) -> None:
    step = ModulesAtBoot(BOOT, MODULES)
    host = KnownFacts(has(*known))
    assert (await applied(step, host)).split() == list(named)
    assert await drifted(step, host) is None
    host = KnownFacts({**has(*known), FileText(BOOT): "# site\nip_vs\n" + "\n".join(MODULES), FileState(BOOT): THERE})
    if set(named) != set(MODULES):
        assert (await applied(step, host)).split("\n")[:2] == ["# site", "ip_vs"]
        assert set(host.written[BOOT].split()) == {"#", "site", "ip_vs", *named}
    assert await drifted(step, host) is None


async def test_without_modprobe_all_modules_are_named() -> None:
    assert (await applied(ModulesAtBoot(BOOT, MODULES), KnownFacts({}))).split() == list(MODULES)


@pytest.mark.parametrize("stderr", ["", "modprobe: invalid option -- 'n'\n", "modprobe: FATAL: Module other not found"])
async def test_a_modprobe_that_does_not_say_that_a_module_is_not_there_takes_none_out(stderr: str) -> None:
    """A look that failed once took the module's line out, and the next run put it back at the end of the file."""
    fails = {Says(("modprobe", "-n", "--", one)): Output(1, "", stderr) for one in (*MODULES, *NFT)}
    there = {FileText(BOOT): "\n".join(MODULES) + "\n", FileState(BOOT): THERE}
    assert await drifted(ModulesAtBoot(BOOT, MODULES), KnownFacts({**fails, **there})) is None


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n", "timeout: 30\ndebug: true # ours\n", "{timeout: 30}\n"])
async def test_what_people_set_for_crictl_survives(text: str | None) -> None:
    step, host = crictl_finds(CRI_SOCKET), KnownFacts({})
    if text is not None:
        host.facts |= {FileText(CRICTL): text, FileState(CRICTL): THERE}
    written = await applied(step, host)
    ours = {"runtime-endpoint": CRI_SOCKET, "image-endpoint": CRI_SOCKET}
    assert yaml.safe_load(written) == {**(yaml.safe_load(text or "") or {}), **ours}
    assert ("# ours" in written, "# nothing" in written) == ("# ours" in (text or ""), "# nothing" in (text or ""))
    assert await drifted(step, host) is None


async def test_a_file_of_crictl_that_nobody_can_read_is_left_alone() -> None:
    host = KnownFacts({FileText(CRICTL): "a: [\n", FileState(CRICTL): THERE})
    with pytest.raises(Permanent, match=CRICTL) as refused:
        await drifted(crictl_finds(CRI_SOCKET), host)
    assert refused.value.code == "SHW-343"


OURS = f'{KEPT}server = "https://quay.io"\n\n[host."http://mirror:5000"]\ncapabilities = ["pull", "resolve"]\n'


def registry(text: str | None) -> tuple[RegistryHosts, KnownFacts]:
    """Return the step, and a host whose file has this text."""
    host = KnownFacts({} if text is None else {FileText(TOML): text, FileState(TOML): THERE})
    return RegistryHosts("quay.io is pulled through its mirror", TOML, OURS), host


@pytest.mark.parametrize("text", [None, "", f'{KEPT}server = "https://old.example"\n'])
async def test_a_registrys_file_is_written_where_there_is_none_or_ours(text: str | None) -> None:
    assert await applied(*registry(text)) == OURS


@pytest.mark.parametrize("more", ["", '\n[host."http://second:5000"]\nskip_verify = true\n'])
async def test_another_owners_file_that_says_the_same_is_as_wanted(more: str) -> None:
    assert await drifted(*registry(f"# the site's\n{OURS.removeprefix(KEPT)}{more}")) is None


@pytest.mark.parametrize(
    "text",
    [
        'server = "https://quay.io"\n[host."http://other:5000"]\n',
        f'[host."http://other:5000"]\n{OURS.removeprefix(KEPT)}',
        "not toml",
        'host = "x"\n',
    ],
)
async def test_another_owners_file_that_says_something_else_is_never_written(text: str) -> None:
    step, host = registry(text)
    for deed in (step.check(cast("Host", host)), step.apply(cast("Host", host))):
        with pytest.raises(Permanent, match="not written by Shipway") as refused:
            await deed
        assert refused.value.code == "SHW-344"
    assert host.written == {}


async def test_the_pause_image_leaves_mode_and_owner_of_containerds_file() -> None:
    class Kept(KnownFacts):
        kept: dict[str, str] | None = None

        async def write(self, path: str, content: bytes, **how: str) -> None:
            self.kept = how
            await super().write(path, content, **how)

    images = Says(("kubeadm", "config", "images", "list"))
    text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "registry.k8s.io/pause:3.8"\n'
    private = FileInfo("0" * 64, "640", "root:containerd", 1)
    facts: dict[Any, Any] = {images: said("registry.k8s.io/pause:3.10\n"), DUMP: said(text)}
    host = Kept({**facts, FileText(CONFIG): text, FileState(CONFIG): private})
    await SandboxImageAgrees(images).apply(cast("Host", host))
    assert "pause:3.10" in host.written[CONFIG]
    assert host.kept == {"mode": "640", "owner": "root:containerd"}


def test_our_settings_are_those_of_the_guide() -> None:
    assert with_sysctls("", BRIDGED).count("\n") == len(BRIDGED)
