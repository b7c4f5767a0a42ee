"""A minimal host: no iptables, no legacy modules in its kernel; what is needed is named and brought."""

from __future__ import annotations

from typing import cast

import pytest

from shipway.cluster.profiles import profile_data, profile_names
from shipway.facts.files import FileText, Listing
from shipway.host.session import Command, Host
from shipway.script import Output
from shipway.steps.system.kernel import NAT_WORKS, NFT, ModulesLoaded
from tasks.stages.prepare_system import MODULES
from tests.places.facts import KnownFacts, said

NO_IPTABLES = Output(127, "", "timeout: failed to run command 'iptables': No such file or directory")
LEGACY = ("overlay", "br_netfilter", "ip_tables", "iptable_nat", "nf_nat")


class Kernel(KnownFacts):
    """A host whose kernel has these modules and loads nothing else; `iptables` answers once translation is there."""

    def __init__(self, modules: tuple[str, ...], *, iptables: bool) -> None:
        super().__init__({Listing("/proc/sys/net"): ("bridge", "core"), NAT_WORKS: NO_IPTABLES})
        self.modules, self.iptables, self.loaded = modules, iptables, list[str]()

    async def do(self, *commands: Command) -> list[Output]:
        """Load what can be loaded."""
        for command in commands:
            if command.words[:1] == ("modprobe",) and command.words[-1] in self.modules:
                self.loaded.append(command.words[-1])
        self.facts[FileText("/proc/modules")] = "".join(f"{name} 1 0 - Live 0x0\n" for name in self.loaded)
        translates = "ip_tables" in self.loaded or "nf_tables" in self.loaded
        self.facts[NAT_WORKS] = said("-P PREROUTING ACCEPT\n") if self.iptables and translates else NO_IPTABLES
        return await super().do(*commands)


@pytest.mark.parametrize(
    ("modules", "iptables"),
    [
        (LEGACY, True),
        (LEGACY, False),
        (("overlay", "br_netfilter", *NFT), True),
        (("overlay", "br_netfilter", *NFT), False),
    ],
)
async def test_translation_is_brought_about_by_whichever_modules_the_kernel_has(
    modules: tuple[str, ...], *, iptables: bool
) -> None:
    host, step = Kernel(modules, iptables=iptables), ModulesLoaded(MODULES)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    assert await step.check(cast("Host", host)) is None


async def test_a_kernel_without_any_translation_is_still_reported() -> None:
    host, step = Kernel(("overlay", "br_netfilter"), iptables=True), ModulesLoaded(MODULES)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    again = await step.check(cast("Host", host))
    assert again is not None
    assert again.have == "ip_tables, iptable_nat, nf_nat missing"


@pytest.mark.parametrize("name", [name for name in profile_names() if name not in ("seed", "lab")])
def test_profiles_name_what_the_kubelets_package_only_recommends(name: str) -> None:
    """The guide's profile keeps the guide's list: the packages of 1.31 bring these along."""
    assert {"conntrack", "ethtool", "iptables", "socat"} <= set(profile_data(name)["system"]["packages"])
