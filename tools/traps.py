"""The known traps of building a GPU cluster, one line each, and where each is answered: docs/traps.md is made of it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from shipway.known_failures.catalogue import KNOWN, VAGUE
from shipway.rules.solver import REFUSALS, WARNINGS
from shipway.survey.machines import COMPARISONS
from shipway.survey.notices import TRAPS as NOTICED

ROOT = Path(__file__).parent.parent
HOST_TRAPS = 51  # the numbers from 52 on are traps of the libraries underneath
TITLES: dict[int, str] = {
    1: "another package manager holds dpkg's lock on a new machine",
    2: "apt waits for an answer nobody can give",
    3: "an upgrade replaces driver, kernel or containerd under running pods",
    4: "after a restart the new kernel has no NVIDIA module",
    5: "held packages stop apt",
    6: "unpinned containerd.io jumps a major version",
    7: "a repository's key expires or its layout moves",
    8: "a content network refuses one host's address",
    9: "swap comes back after a restart",
    10: "bridge values are set before br_netfilter is loaded",
    11: "too few inotify instances",
    12: "two hosts with one name, machine-id or address replace each other",
    13: "the kubelet takes the wrong interface's address",
    14: "CoreDNS forwards to itself through 127.0.0.53",
    15: "clocks apart make certificates and tokens invalid",
    16: "the kubelet refuses cgroup v1 from 1.35 on",
    17: "packaged containerd has its CRI plugin disabled",
    18: "containerd's configuration has another layout per version",
    19: "the sandbox image does not follow kubeadm's image repository",
    20: "the systemd cgroup driver is missing on the nvidia runtime",
    21: "a drop-in replaces the table of runtimes",
    22: "containerd is restarted for nothing, or there are two of it",
    23: "the device plugin runs outside the nvidia runtime and sees no GPU",
    24: "toolkit 1.18.0 writes a drop-in nobody loads",
    25: "rewriting config.toml drops the nvidia runtime",
    26: "nvidia is the default runtime on a host without driver",
    27: "pods that asked for no GPU see all of them",
    28: "daemon-reload takes the GPUs from running containers",
    29: "device plugin 0.18 and later ends with an error on CPU nodes",
    30: "allocatable drops to 0 after kubelet and plugin race",
    31: "CUDA fails on NVSwitch without a matching fabric manager",
    32: "nvidia-smi hangs and cannot be killed",
    33: "nouveau or Secure Boot keeps the driver out",
    34: "a second kubeadm init fails on what the first left",
    35: "the pod network holds fewer nodes than there are hosts",
    36: "pod, service and host networks overlap",
    37: "join tokens expire, race, or end up in logs",
    38: "a time-out of kubeadm init hides which part died",
    39: "flags, gates and API versions change with the minor",
    40: "kubeadm reset leaves things behind",
    41: "Calico's CRDs are too large for client-side apply",
    42: "Calico's objects come before their kinds",
    43: "nodes do not reach each other: BGP, IPIP or VXLAN blocked",
    44: "a firewall on the host drops forwarded packets or the API's port",
    45: "the dashboard's token, and cluster-admin on an open port",
    46: "a GPU test passes although one GPU did all the work",
    47: "a waiting pod does not say why",
    48: "GPU pods lack toleration or RuntimeClass",
    49: "sudo, terminals and session limits over SSH",
    50: "one dead host stops the whole run",
    51: "containerd 1.x is on its way out of Kubernetes",
    52: "asyncssh: a lost connection looks like a normal end",
    53: "Prefect: the same task with the same arguments answers from its cache",
    54: "Prefect: live objects as task arguments",
    55: "Prefect: a plain retry condition never retries",
    56: "Prefect: its server and newer FastAPI releases",
    57: "python -m loads the flow's file twice",
    58: "Prefect's test harness takes twenty seconds",
    59: "retries of two layers multiply",
}
# Answered by how the whole is built, not by one step: the file where it can be read.
BUILT_IN: dict[int, str] = {
    28: "tasks/workloads.py",
    48: "manifests/verify/pod.yaml",
    49: "shipway/host/ssh/connection.py",
    50: "flows/bootstrap.py",
    52: "shipway/host/ssh/connection.py",
    53: "tasks/run_stage.py",
    54: "tasks/context.py",
    55: "tasks/run_stage.py",
    56: "pyproject.toml",
    57: "flows/bootstrap.py",
    58: "tests",
    59: "shipway/retry.py",
}


def answers() -> dict[int, list[str]]:
    """Return for each trap what answers it: catalogue entries, solver rules, steps and checks, or the design itself."""
    found: dict[int, list[str]] = defaultdict(list)
    for entry in (*KNOWN, *VAGUE):
        for trap in entry.traps:
            found[trap].append(f"error {entry.code}")
    rules = [(rule.title, rule.traps) for rule in REFUSALS] + [(rule.title, rule.traps) for rule in WARNINGS]
    for title, traps in rules:
        for trap in traps:
            found[trap].append(f"solver: {title}")
    for comparison in COMPARISONS:
        for trap in comparison.traps:
            found[trap].append(f"between hosts: {comparison.title}")
    for trap in NOTICED:
        found[trap].append("warning: shipway.survey.notices")
    for trap, name in step_traps():
        found[trap].append(name)
    for trap, file in BUILT_IN.items():
        found[trap].append(f"built in: {file}")
    return {trap: sorted(dict.fromkeys(found[trap])) for trap in sorted({*TITLES, *found})}


def sources() -> list[Path]:
    """Return the source files of the packages, in order."""
    return sorted(path for package in ("shipway", "tasks", "flows") for path in (ROOT / package).rglob("*.py"))


def step_traps() -> Iterator[tuple[int, str]]:
    """Yield each trap a step or check says it answers (its class variable `traps`); read, not imported."""
    for path in sources():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "traps" in text else ():
            if isinstance(node, ast.ClassDef):
                where = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield from ((trap, f"step {where}.{node.name}") for trap in _find_declared(node))


def _find_declared(node: ast.ClassDef) -> tuple[int, ...]:
    """Return the numbers in `traps: ClassVar[...] = (...)` of a class."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id == "traps":
            value = ast.literal_eval(line.value) if line.value else ()
            return tuple(number for number in value if isinstance(number, int))
    return ()
