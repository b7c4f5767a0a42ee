"""Two hostile hosts, and every step of every stage let loose on them through real SSH, a real `sh` and stand-ins."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shipway.cluster.model import Cluster
from shipway.cluster.secrets import block_of, keep
from shipway.errors import ShipwayError
from shipway.facts.commands import WATCHED
from shipway.gpu.beside import START, STOP, run_beside
from shipway.host.session import Command, Host
from shipway.host.ssh import Pool
from shipway.ownership.evidence import STARTED
from shipway.rules.files import secret_places
from shipway.script import READER
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.reset import reset
from shipway.steps.system.sources import CURL, script_of
from tasks.stages import (
    container_runtime,
    control_plane,
    join_worker,
    kubernetes_packages,
    nvidia_runtime,
    preflight,
    prepare_system,
)
from tests.places.facts import DEBIAN
from tests.places.shell_server import shell_server
from tests.places.standins import StandIns
from tests.security.hostile import MARK, PAYLOADS

TEXTS = tuple(one for one in PAYLOADS if not re.search(r"[\x00-\x1f.\u2028]", one))
OWN = {"make_room", "was_whole"}  # words of the script itself
# What a constant script of ours starts: words of our own, and of what the shell fills in only the numbers of processes.
OF_SCRIPTS = (
    r"grep -lszx k8s\[\.\]io( /proc/\d+/cmdline)+",  # the look for running pods, repeated right before an act
    r"grep -qs kubepods /proc/1/cgroup",
    r"grep -ls kubepods( /proc/\d+/cgroup)+",
    r"systemctl show --no-pager -p Id -p LoadState -p ExecStart -- \*\.service",  # the look for what turns swap on
    r"df -PB1 -- /[a-z/]*",  # room for the audit log, at the nearest folder that is there
    r"ip -4 neigh show to [0-9.]+",  # who answers for the address of clients outside
    # What the API server's certificate is good for, and whether its key is beside it.
    r"openssl x509 -noout (-ext subjectAltName|-pubkey) -in /etc/kubernetes/pki/apiserver\.crt",
    r"openssl pkey -pubout -in /etc/kubernetes/pki/apiserver\.key",
    # What containerd may lock: a number of a process, or 0. The product data of InfiniBand devices.
    r"systemctl show -p MainPID --value containerd\.service",
    r"grep -H \^Max locked memory /proc/\d+/limits /proc/1/limits",
    r"grep \^CapEff: /proc/1/status",
    r"grep -la SW_MNG( /sys/class/infiniband/[^/ ]+/device/vpd)+",
    r"grep -sH \.( [*/a-z_]+)+",  # the ports of InfiniBand and RoCE
    r"dmesg|(timeout -k 2 10 )?journalctl -k -b -q --no-pager -o short-monotonic",  # what the kernel said of GPUs
    r"awk \n(?s:[^/]*)match\(\$0, /SXid (?s:.*) exit !told\n}",
    # Which servers the kubeconfigs on a host name, before a worker's proxy goes.
    r"grep -HsoE \"\?\\<server\"\S+ \*\S+( (/etc/kubernetes/\S+|/root/\.kube/config|/home/\S+/\.kube/config))+",
    # What guards a command beside a pod that holds the GPUs, and what ends it: files that we named alone.
    r"install -d -m 700 /\S+|stat -c %y /\S+/gpus-[0-9a-f]{16}|rm -f( /\S+/gpus-[0-9a-f]{16}(\.pid)?)+",
    r"cat /\S+/gpus-[0-9a-f]{16}\.pid|seq \d+|sleep (1|\.5)",
    # Where keys of encryption at rest are.
    r"find (/etc/kubernetes -maxdepth|/var/lib/shipway/backups -mindepth) 3 -type f [^$;]* grep -lE \S+ -- \{\} \+",
)
HOSTILE = "\n".join([*PAYLOADS, "sda1", "12 34 56 78 /"]).replace("\x00", "")


def heard(cluster_name: str, *, apt_key: bytes) -> dict[str, dict[str, str]]:
    """Return what two hostile hosts answer: one rubbish, the other what lets its hostile names go furthest."""
    names = "".join(f"{one}\n" for one in PAYLOADS if "\x00" not in one)
    far = {
        "other": names,
        "cat": names,
        "cat-_var_lib_shipway_init-started": f"{cluster_name}\n",
        "cat-_etc_os-release": f"ID=debian$(touch {MARK})\nVERSION_CODENAME='x; touch {MARK}'\nVERSION_ID=12\n",
        "cat-_etc_kubernetes_pki_ca.crt": _certificate(),
        "cat-_proc_swaps": "Filename\n/swap.img file 1 1\n",
        "cat-_var_lib_kubelet_config.yaml": f"kind: KubeletConfiguration\nevil: $(touch {MARK})\n",
        "ls": f"ca.crt\nca.key\nsa.key\nsa.pub\netcd\npki\nsite.list\na;touch {MARK};.list\n{names}",
        "dpkg-query": "".join(
            f"{name}|amd64|{state}|1|nvidia-x|{name}\n"
            for name, state in (
                ("-o", "ii "),
                (f"$(touch {MARK})", "ii "),
                (f";touch {MARK}", "hi "),
                ("nvidia-driver", "ii "),
            )
        ),
        "apt-cache": f"1.34.2-$(touch {MARK})",
        "systemctl": f"$(touch${{IFS}}{MARK}).swap loaded active\n-x.swap loaded\n;touch${{IFS}}{MARK};.swap loaded\n",
        "grep-k8s[.]io": "",  # no pods run: beside them nothing is reset, and its names would go nowhere
        "grep-kubepods": "",
        "kubeadm": "abcdef.0123456789abcdef\n",
        "cat-_etc_kubernetes_kubelet.conf": f"    server: https://10.0.0.1:6443\n{names}",
        "curl---cacert": '{"gitVersion": "v1.34.2"}',  # else no package of Kubernetes would be asked for
        "curl": "200",
        "date": "1700000000.0",
        "getent": f"ops:x:1000:1000::/home/$(touch {MARK}):/bin/sh\n",
        "containerd-default": f'version = 2\n[plugins."$(touch {MARK})"]\n"; touch {MARK}" = "`touch {MARK}`"\n',
        "base64": apt_key.decode(),
        "uname": f"x86_64;touch {MARK}",
    }
    rubbish = {"other": HOSTILE, "apt-cache": f"9; touch {MARK}", "dpkg-query": HOSTILE, "cat": HOSTILE}
    return {"rubbish": rubbish, "far": far}


def _certificate() -> str:
    """Return some certificate authority's certificate as PEM."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
    dated = built.serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=1))
    return dated.sign(secret, SHA256()).public_bytes(Encoding.PEM).decode()


@dataclass
class Watched:
    """All words that steps gave to a shell."""

    words: list[tuple[str, ...]] = field(default_factory=list)

    def suffixes(self) -> set[tuple[str, ...]]:
        """Return what a wrapper may start: the end of what it was given."""
        return {words[start:] for words in self.words for start in range(len(words))}


@asynccontextmanager
async def two_hosts(folder: Path) -> AsyncIterator[tuple[Host, Host]]:
    """Yield sessions of two hosts, one of which logs in as a user and so goes through sudo."""
    pool = Pool()
    async with shell_server(folder) as server:
        try:
            yield pool.host(replace(server.target, user="ops")), pool.host(replace(server.target, name="control"))
        finally:
            await pool.close()


class Resetting:
    """A reset on its own: the stages refuse one on what these hosts show, and the names it meets must be tried."""

    name = "the host is reset"
    impact = Impact.WORKLOADS

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - nothing is asked: it is always done
        """Find it never done."""
        return Drift("not reset", "reset")

    async def apply(self, on: Host) -> None:
        """Reset it."""
        await reset(on)


@dataclass(frozen=True)
class Guarding:
    """A command of a pod's that holds the GPUs: what guards it and what ends it believe no word of the host's."""

    folder: Path
    name: str = "a command runs beside a pod"

    async def check(self, on: Host) -> None:
        """Ask nothing: it is always done."""

    async def apply(self, on: Host) -> None:
        """Run one, and end what the host says is still at work."""
        self.folder.mkdir(exist_ok=True)

        async def holds() -> bool:
            return True

        await run_beside(on, Command(("nvidia-smi", "-q")), holds, folder=str(self.folder))
        path = str(self.folder / f"gpus-{0:016x}")
        await on.do(Command(("sh", "-c", START, path, str(self.folder))))
        await on.do(Command(("sh", "-c", STOP, path)))


def all_steps(cluster: Cluster, control: Host) -> Iterator[Any]:
    """Yield every step of every stage of a host."""
    host = cluster.hosts[1]
    yield from preflight.checks(cluster, host, DEBIAN)
    for module in (prepare_system, container_runtime, nvidia_runtime, kubernetes_packages):
        yield from module.steps(cluster, host, DEBIAN)
    yield from control_plane.steps(cluster, cluster.hosts[0], DEBIAN, reset=True)
    yield from join_worker.steps(cluster, host, DEBIAN, control)
    yield Resetting()


async def driven(cluster: Cluster, folder: Path) -> Counter[str]:
    """Look by every step and let it do its work, whatever it saw; an error of ours is an answer, any other is a bug."""
    for place in secret_places(cluster):
        keep(block_of(place), "ops:hunter2")
    counted: Counter[str] = Counter()
    async with two_hosts(folder) as (on, control):
        for step in [*all_steps(cluster, control), Guarding(folder / "guarded")]:
            for deed in ("check", "apply"):
                if not hasattr(step, deed):
                    continue
                on.forget()
                control.forget()
                try:
                    await (step.check(on) if deed == "check" else step.apply(on))
                except ShipwayError as error:
                    counted[type(error).__name__] += 1
                else:
                    counted["done"] += 1
    return counted


def judged(watched: Watched, programs: StandIns, work: Path) -> int:
    """Check that exactly the words of steps reached programs; return how many programs ran."""
    may = watched.suffixes() | {("rm", "-f", "--", STARTED), ("dpkg", "--print-architecture")}
    may |= {("timeout", "-k", "2", *words[3:4], *words[5:]) for words in watched.words if words[2:3] == (WATCHED,)}
    urls = [re.escape(words[7]) for words in watched.words if words[6:7] == (script_of(DEBIAN),)]
    urls += [re.escape(words[7]) for words in watched.words if words[2:3] == (script_of(DEBIAN),)]
    filled = re.compile(
        "|".join(re.sub(r"\\{(os|codename|arch|release|machine)\\}", "[a-z0-9_]*", url) for url in urls) or "none"
    )
    ran = programs.ran()
    for asked in [words[1:] for words in watched.words if words[0] == "make_room"]:
        may |= {("mkdir", "-p", "--", *(fresh.rpartition("/")[0] + "/" for fresh in asked))}
        may |= {("rm", "-f", "--", fresh) for fresh in asked}
    strange = [
        words for words in ran if not (words in may or _carries(words) or _curl(words, filled) or _scripted(words))
    ]
    assert not strange, sorted(set(strange))[:20]
    assert not list(work.rglob(f"*{MARK}*"))
    assert not Path(MARK).exists()
    assert {words[0] for words in watched.words} - {words[0] for words in ran} <= {
        "make_room",
        "was_whole",
    }  # the script's own
    return len(ran)


def _curl(words: tuple[str, ...], filled: re.Pattern[str]) -> bool:
    """Tell whether it asks for an address whose holes the host filled in."""
    return words[:-1] == CURL and filled.fullmatch(words[-1]) is not None


def _scripted(words: tuple[str, ...]) -> bool:
    """Tell whether a constant script of ours started it: no text of a file or of a host is in such a script."""
    return any(re.fullmatch(one, " ".join(words)) for one in OF_SCRIPTS)


def _carries(words: tuple[str, ...]) -> bool:
    """Tell whether it is how a whole script reaches a host's shell."""
    if words[0] == "dd":
        return re.fullmatch(r"dd bs=\d+ count=1 iflag=fullblock status=none", " ".join(words)) is not None
    return words[-1].endswith(READER) or words[-3:] == ("sh", "-c", shlex.split(READER)[2])
