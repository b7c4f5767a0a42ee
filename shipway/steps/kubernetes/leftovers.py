"""What `kubeadm reset` leaves behind: interfaces of pod networks and the chains of kube-proxy and Calico."""

from __future__ import annotations

from collections.abc import Iterable

from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import OPERATIONS, Command, Host

INTERFACES = Listing("/sys/class/net")
# They keep the old cluster's addresses, and the next network refuses to start beside them (website#49448, k0s#823).
LINKS = ("cni0", "flannel.1", "kube-ipvs0", "nodelocaldns", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali")
RULES = f"{OPERATIONS}/without-chains"
CHAINS = ("KUBE-", "CNI-", "cali-", "FLANNEL-")
TABLES = {"iptables-restore": Says(("iptables-save",)), "ip6tables-restore": Says(("ip6tables-save",))}


async def clean(on: Host) -> None:
    """Remove these interfaces and chains, and nothing else; raises CommandFailed where one cannot be removed.

    Rules are never flushed as a whole: the host's own firewall stays as it is, and so does this SSH connection.
    """
    names, saved = await on.read(INTERFACES), await on.read_all(list(TABLES.values()))
    links = [Command(("ip", "link", "delete", name)) for name in names if name in LINKS]
    if links:
        await on.do(*links)
    for program, output in zip(TABLES, saved, strict=True):
        undoing = without_chains(output.stdout) if output.ok else ""
        if undoing:
            await on.write(RULES, undoing.encode(), mode="600")
            await on.do(Command((program, "--noflush", RULES)), Command(("rm", "-f", RULES)))


def without_chains(saved: str, prefixes: tuple[str, ...] = CHAINS) -> str:
    """Return what `iptables-restore --noflush` must read to be rid of our chains in a saved rule set; "" for none.

    Ours are those whose names begin with one of the prefixes.

    A chain that is named again is emptied; then the jumps to it can go, and then the chain (kube-proxy does the same).
    """
    tables = saved.split("\n*")
    return "".join(_undone(table.splitlines(), prefixes) for table in tables)


def _undone(lines: list[str], prefixes: tuple[str, ...]) -> str:
    """Return the part of one table; its first line is its name."""
    chains = [line[1:].split(" ", 1)[0] for line in lines if line.startswith(":") and line[1:].startswith(prefixes)]
    if not chains:
        return ""
    jumps = [f"-D {line.removeprefix('-A ')}" for line in lines if _jumps(line, prefixes)]
    name = next(line.lstrip("*") for line in lines if line and not line.startswith("#"))
    parts: Iterable[str] = (f"*{name}", *(f":{c} - [0:0]" for c in chains), *jumps, *(f"-X {c}" for c in chains))
    return "".join(f"{part}\n" for part in (*parts, "COMMIT"))


def _jumps(line: str, prefixes: tuple[str, ...]) -> bool:
    """Say whether a rule of somebody else's chain leads into one of ours."""
    words = line.split()
    targets = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-j", "-g", "--jump", "--goto")]
    return (
        words[:1] == ["-A"]
        and not words[1].startswith(prefixes)
        and any(target.startswith(prefixes) for target in targets)
    )
