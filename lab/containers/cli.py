"""The lab's command line: python -m lab.containers VERB."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from lab.containers import install, machine
from lab.containers.bundle import build_bundle
from lab.containers.commands import LabError, say
from lab.containers.lab import Lab
from lab.containers.labels import LABELS, require_labels
from lab.containers.model import CONTAINERD_VERSIONS, plan
from lab.containers.places import Cache, default_state

HOST_VERBS = {
    "cut": "cut a host off the network",
    "plug": "put a cut-off host back",
    "pause": "freeze a host",
    "unpause": "let a frozen host go on",
    "reboot": "restart a host and wait for sshd",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.containers", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=Path, default=default_state(), metavar="DIR", help="default: %(default)s")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=[common])

    bundle = add("bundle", "build what the hosts install from")
    bundle.add_argument("--refresh", action="store_true", help="fetch Debian's newest packages")
    bundle.add_argument("--labels", action="store_true", help=f"offer {', '.join(LABELS)} as well, for upgrades")
    up = add("up", "start a lab")
    up.add_argument("--hosts", default="cp1,w1,w2", help="names, NAME:GPUS for a host's own number (%(default)s)")
    up.add_argument("--gpus", type=int, default=2, help="SIMULATED GPUs of each worker (%(default)s)")
    up.add_argument(
        "--containerd",
        choices=CONTAINERD_VERSIONS,
        default="",
        help="1.6; for Kubernetes 1.26 and later 2.1",
    )
    up.add_argument("--number", type=int, default=0, help="0 to 63: several labs on one machine (%(default)s)")
    add("down", "take the lab away; the cache stays")
    add("fresh", "replace hosts by bare ones").add_argument("hosts", nargs="+", help="names, or all")
    for name, text in HOST_VERBS.items():
        add(name, text).add_argument("host")
    execute = add("exec", "run a command as root on a host")
    execute.add_argument("host")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD")
    gpu = add("gpu", "set a GPU's health")
    gpu.add_argument("host")
    gpu.add_argument("id", help="UUID or index")
    gpu.add_argument("health", choices=["Healthy", "Unhealthy"])
    swap = add("swap", "show or hide SIMULATED swap")
    swap.add_argument("host")
    swap.add_argument("state_of_swap", choices=["on", "off"])
    packages = add("packages", "let the mirror answer for packages with an HTTP status, or serve them again")
    packages.add_argument("mirror", type=lambda word: word if word == "ok" else int(word), metavar="STATUS|ok")
    add("images", "stop the mirror's registry, or start it").add_argument("mirror", choices=["up", "down"])
    add("status", "show the hosts")
    add("doctor", "say what this machine lacks").add_argument("--install", action="store_true", help="install packages")
    return parser


def _doctor(*, mend: bool) -> int:
    if mend:
        install.install()
    machine.load_modules()
    findings = machine.examine(Cache.default().root)
    for finding in findings:
        say(f"{'ok     ' if finding.good else 'MISSING'} {finding.text}")
    return 0 if all(finding.good for finding in findings) else 1


def _exec(lab: Lab, host: str, words: list[str]) -> int:
    """Run a command on a host with this terminal's input and output; gives its exit code."""
    command = words[1:] if words[:1] == ["--"] else words
    address = f"unix://{lab.engine().run_folder}/docker.sock"
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    name = lab.plan.host(host).name
    return subprocess.call(["docker", "--host", address, "exec", "--interactive", *terminal, name, *command])


def _status(lab: Lab) -> None:
    for host in lab.plan.hosts:
        say(f"{host.name:12} {host.address:15} {lab.status()[host.name]:8} GPUs: {host.gpus}")


def _act(words: argparse.Namespace) -> int:
    lab = Lab(words.state)
    if words.verb == "doctor":
        return _doctor(mend=words.install)
    if words.verb == "exec":
        return _exec(lab, words.host, words.words)
    _change(lab, words)
    return 0


def _change(lab: Lab, words: argparse.Namespace) -> None:
    match words.verb:
        case "bundle":
            build_bundle(lab.cache, refresh=words.refresh)
            if words.labels:
                require_labels(lab.cache)
        case "up":
            lab.up(plan(words.hosts, gpus=words.gpus, containerd=words.containerd, number=words.number))
        case "down":
            lab.down()
        case "fresh":
            lab.fresh(*([] if words.hosts == ["all"] else words.hosts))
        case "gpu":
            lab.gpu(words.host, words.id, words.health)
        case "swap":
            lab.swap(words.host, on=words.state_of_swap == "on")
        case "status":
            _status(lab)
        case "packages" | "images":
            _mirror(lab, words)
        case verb:
            getattr(lab, verb)(words.host)


def _mirror(lab: Lab, words: argparse.Namespace) -> None:
    """Put the mirror out of order, or back."""
    if words.verb == "images":
        lab.mirror().images(up=words.mirror == "up")
    elif words.mirror == "ok":
        lab.mirror().serve()
    else:
        lab.mirror().answer(words.mirror)


def main() -> int:
    """Run one verb; gives the exit code."""
    try:
        return _act(_parser().parse_args())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
