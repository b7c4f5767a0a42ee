"""Kubernetes 1.20.2's programs and the lab's Go stand-ins, built from Debian's source package `kubernetes`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.containers.commands import LabError, run
from lab.containers.debian import Apt
from lab.containers.kubernetes import PROGRAMS
from lab.containers.places import ASSETS

VERSION = "1.20.2"
SOURCE = "kubernetes"
STAND_INS = ("crictl", "coredns", "nvidia-device-plugin", "pause", "lab-runtime")
# Where `--version`, /version and the clients' user agents read theirs: two packages, each also by its vendored name.
VERSION_PACKAGES = tuple(
    prefix + package
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for prefix in ("", "k8s.io/kubernetes/vendor/")
)
VERSION_VALUES = {
    "gitVersion": f"v{VERSION}",
    "gitMajor": "1",
    "gitMinor": "20",
    "gitTreeState": "archive",
    "gitCommit": "faecb196815e248d3ecfb03c680a4507229c2a56",  # what the tag v1.20.2 names
    "buildDate": "2021-01-13T13:20:00Z",
}
# reflect2 1.0.1, vendored upstream, panics when built with Go 1.18 and later; Debian packages 1.0.2.
REFLECT2 = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
RECIPE = f"1 {VERSION} {PROGRAMS} {VERSION_PACKAGES} {sorted(VERSION_VALUES.items())}"
JOBS = "2"  # each Go compiler takes up to a gigabyte on kube-apiserver's packages


def _tree(apt: Apt, work: Path) -> Path:
    """Return the unpacked source tree in a GOPATH below `work`."""
    apt.update()
    description = apt.source(SOURCE, work / "source")
    tree = work / "go" / "src" / "k8s.io" / "kubernetes"
    tree.parent.mkdir(parents=True)
    run("dpkg-source", "--no-check", "-x", description, tree)
    if not REFLECT2.is_dir():
        raise LabError(f"{REFLECT2} is missing; run `python -m lab.containers doctor --install`")
    vendored = tree / "vendor" / "github.com" / "modern-go" / "reflect2"
    shutil.rmtree(vendored)
    shutil.copytree(REFLECT2, vendored)
    return tree


def _go(tree: Path, work: Path, *words: str, seconds: float) -> None:
    settings = {
        "GOPATH": str(work / "go"),
        "GOCACHE": str(work / "gocache"),
        "HOME": str(work),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
        "GOFLAGS": f"-p={JOBS}",
        "GOMAXPROCS": JOBS,
    }
    run("nice", "-n", "5", *words, env=settings, cwd=tree, seconds=seconds)


def build_programs(apt: Apt, into: Path) -> None:
    """Build the seven programs of Kubernetes into a folder: 6 to 12 minutes on two cores, 3 GB of disk on the way."""
    _build(apt, into, {into: VERSION_VALUES})


def build_labels(apt: Apt, into: Path, labels: Sequence[str]) -> None:
    """Build the same source once more under each of these versions, into a folder each.

    What is compiled for the first serves the others, which are only linked: about a minute each. They differ from
    1.20.2 in nothing but what they say that they are.
    """
    _build(apt, into, {into / label: _labelled(label) for label in labels})


def _labelled(version: str) -> dict[str, str]:
    """Return what a build says of itself that goes under another version."""
    major, minor, _ = version.split(".")
    return {**VERSION_VALUES, "gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}


def _build(apt: Apt, into: Path, wanted: Mapping[Path, Mapping[str, str]]) -> None:
    """Compile the source once, and link it into each folder with what it is to say of itself."""
    work = into / "work"
    tree = _tree(apt, work)
    _go(tree, work, "make", "generated_files", seconds=1800)
    packages = [f"./cmd/{name}" for name in PROGRAMS]
    for folder, values in wanted.items():
        said = [f"-X {package}.{name}={value}" for package in VERSION_PACKAGES for name, value in values.items()]
        flags = f"-s -w {' '.join(said)}"
        folder.mkdir(exist_ok=True)
        _go(tree, work, "go", "build", "-o", f"{folder}/", "-ldflags", flags, *packages, seconds=5400)
    shutil.rmtree(work)


def build_stand_ins(apt: Apt, into: Path) -> None:
    """Build the lab's own Go programs into a folder, against the API packages vendored in Kubernetes' source."""
    work = into / "work"
    tree = _tree(apt, work)
    for name in STAND_INS:
        shutil.copytree(ASSETS / "go" / name, tree / "cmd" / name)
    packages = [f"./cmd/{name}" for name in STAND_INS]
    _go(tree, work, "go", "build", "-o", f"{into}/", "-ldflags", "-s -w", *packages, seconds=1800)
    shutil.rmtree(work)
