"""The contestants: how each is started on an order; the tools of others live in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.bench.work import FACTS, HOSTS_LINES, NODE, Order, files, guarded

HERE = Path(__file__).parent
FORKS = 50
Words = tuple[list[str], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the work: `start(order file, folder)` gives the words and the environment; `package` it needs."""

    name: str
    start: Callable[[Path, Path], Words]
    package: str = ""


def _module(name: str) -> Callable[[Path, Path], Words]:
    return lambda order, _: ([sys.executable, "-m", f"tests.bench.{name}", str(order)], {})


def environment(folder: Path) -> Path:
    """Return the environment of the other tools, made where it is missing; what cannot be had is printed."""
    python = folder / "bin/python"
    if not python.exists():
        print(f"bench: making {folder} from requirements.txt", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    have, lines = versions(folder), (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for name, _, version in [line.partition("==") for line in lines if "==" in line]:
        words = [str(python), "-m", "pip", "install", "-q", f"{name}=={version}"]
        if have.get(name) != version and subprocess.run(words, check=False).returncode:
            print(f"bench: NOT MEASURED, cannot be installed: {name} {version}", flush=True)
    return folder


def versions(folder: Path) -> dict[str, str]:
    """Return what is installed in an environment."""
    words = [str(folder / "bin/python"), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}


def contestants(peers: Path) -> list[Contestant]:
    """Return all of them, the floor first."""

    def pssh(order: Path, _: Path) -> Words:
        return [str(peers / "bin/python"), "-m", "tests.bench.pssh_run", str(order)], {}

    def pyinfra(order: Path, folder: Path) -> Words:
        asked = Order.read(order)
        inventory = folder / "inventory.py"
        common = {"ssh_user": "root", "ssh_key": asked.key, "ssh_port": asked.doors[0].port, "node": NODE}
        common |= {"ssh_known_hosts_file": asked.known_hosts, "ssh_strict_host_key_checking": "yes"}
        common |= {"files": files(), "hosts_lines": list(HOSTS_LINES), "facts": list(FACTS)}
        hosts = [
            (door.name, {"ssh_hostname": door.address, "guarded": guarded(work), **common})
            for door, work in zip(asked.doors, asked.works, strict=True)
        ]
        inventory.write_text(f"hosts = {hosts!r}\n", encoding="utf-8")
        words = [str(peers / "bin/pyinfra"), "-y", "--parallel", str(len(hosts)), str(inventory)]
        return [*words, str(HERE / "pyinfra_deploy.py")], {}

    def ansible(order: Path, folder: Path, strategy: str = "free") -> Words:
        playbook(Order.read(order), folder)
        settings = {
            "ANSIBLE_STRATEGY": strategy,
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_FORKS": str(FORKS),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_STRATEGY_PLUGINS": str(_mitogen(peers)) if strategy.startswith("mitogen") else "",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
            "LC_ALL": "C.UTF-8",
        }
        words = [str(peers / "bin/ansible-playbook"), "-i", str(folder / "inventory.json"), str(folder / "play.json")]
        return words, {name: value for name, value in settings.items() if value}

    return [
        Contestant("floor", _module("floor")),
        Contestant("shipway", _module("stages")),
        Contestant("shipway+prefect", _module("flow")),
        Contestant("parallel-ssh", pssh, "parallel-ssh"),
        Contestant("pyinfra", pyinfra, "pyinfra"),
        Contestant("ansible+mitogen", lambda order, folder: ansible(order, folder, "mitogen_free"), "mitogen"),
        Contestant("ansible", ansible, "ansible-core"),
    ]


def _mitogen(peers: Path) -> Path:
    return next(peers.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy"))


def playbook(order: Order, folder: Path) -> None:
    """Write inventory and playbook for Ansible (JSON is YAML too)."""
    (folder / "files").mkdir(exist_ok=True)
    tasks: list[dict[str, object]] = [{"setup": {"gather_subset": ["min"]}}]
    tasks += [{"command": {"argv": ["cat", *FACTS]}, "changed_when": False}]
    for at, (path, text) in enumerate(files().items()):
        (folder / f"files/{at}").write_text(text, encoding="utf-8")
        tasks.append({"file": {"path": path.rpartition("/")[0], "state": "directory"}})
        tasks.append({"copy": {"src": str(folder / f"files/{at}"), "dest": path, "mode": "0644"}})
    swap = {"path": f"{NODE}/etc/fstab", "regexp": r"^([^#].* swap .*)$", "replace": r"# \1"}
    block = {"path": f"{NODE}/etc/hosts", "block": "\n".join(HOSTS_LINES), "marker": "# {mark} shipway"}
    tasks += [{"replace": swap}, {"blockinfile": block | {"marker_begin": "BEGIN", "marker_end": "END"}}]
    for at in range(len(order.works[0].seconds)):
        flag = f"{NODE}/flags/{at}"
        tasks.append({"shell": f"sleep {{{{ seconds[{at}] }}}}; touch {flag}", "args": {"creates": flag}})
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (folder / "play.json").write_text(yaml.safe_dump(play), encoding="utf-8")
    hosts = {
        door.name: {"ansible_host": door.address, "seconds": list(work.seconds)}
        for door, work in zip(order.doors, order.works, strict=True)
    }
    common = {
        "ansible_user": "root",
        "ansible_port": order.doors[0].port,
        "ansible_ssh_private_key_file": order.key,
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={order.known_hosts}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory = {"all": {"hosts": hosts, "vars": common}}
    (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")


def environ(extra: dict[str, str]) -> dict[str, str]:
    """Return the environment of a contestant's process."""
    return {**os.environ, "PYTHONPATH": str(HERE.parent.parent), **extra}
