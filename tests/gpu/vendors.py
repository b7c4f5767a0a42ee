"""Two vendors for the contract of shipway.gpu.vendor, and an API in memory in which pods are given their GPUs.

NVIDIA is the product's; its words here are recorded ones. AMD is data that nothing chooses (no runtime of its own,
another id, resource and plugin); its words here are made up where nobody has recorded any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shipway.gpu.amd import AMD
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Object
from shipway.place import Place


@dataclass(frozen=True)
class Words:
    """What a vendor's programs say; each text is about two GPUs, or about the one that a pod holds."""

    lists: str  # the probe on a host
    identities: tuple[str, ...]
    fails: str  # the probe without a driver
    device: str  # the node of a pod's GPU, where the host has several
    passes: str  # the sample

    def of_one(self, at: int) -> str:
        """Return what the probe lists in a pod that holds one GPU."""
        return next(line for line in self.lists.splitlines() if self.identities[at] in line)


WORDS = {
    "NVIDIA": Words(
        "GPU 0: NVIDIA A10 (UUID: GPU-4a-b)\nGPU 1: NVIDIA A10 (UUID: GPU-5c)\n",
        ("GPU-4a-b", "GPU-5c"),
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "/dev/nvidia0",
        "[Vector addition of 50000 elements]\nTest PASSED\nDone\n",
    ),
    "AMD": Words(
        "======= ROCm =======\nGPU[0]\t\t: Unique ID: 0x18f6\nGPU[1]\t\t: Unique ID: 0x2a7c\n======= End =======\n",
        ("0x18f6", "0x2a7c"),
        "ERROR: driver not initialized (amdgpu not found in modules)",
        "/dev/dri/renderD128",
        "PASSED!\n",
    ),
}


@dataclass
class Api(Place):
    """An API in memory with one node: pods that ask for a vendor's resource get a GPU each while there are some.

    `shows` is how many GPUs a pod sees that asked for none; `lists` False leaves the probe out of the pods' image.
    """

    vendor: Vendor
    shows: int = 0
    lists: bool = True
    name: str = "an API in memory"
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    @property
    def words(self) -> Words:
        """What the vendor's programs say."""
        return WORDS[self.vendor.name]

    async def get(self, _version: str, kind: str, name: str, _namespace: str = "", **_: Any) -> Object | None:
        """Return an object; the vendor's RuntimeClass is always there."""
        if kind == "RuntimeClass" and self.vendor.runtime and name == self.vendor.runtime.handler:
            return {"kind": kind, "metadata": {"name": name}, "handler": name}
        return self.objects.get((kind, name))

    async def list_(self, _version: str, kind: str, namespace: str = "", **_: Any) -> list[Object]:
        """Return the objects of a kind; the node is always there."""
        if kind == "Node":
            count = {self.vendor.resource: str(len(self.words.identities))}
            ready = [{"type": "Ready", "status": "True"}]
            meta = {"name": "n1", "labels": {self.vendor.label: "true"}}
            return [{"metadata": meta, "status": {"allocatable": count, "capacity": count, "conditions": ready}}]
        return [
            one
            for (found, _), one in self.objects.items()
            if found == kind and namespace in ("", one["metadata"].get("namespace"))
        ]

    async def apply(self, obj: Object) -> None:
        """Keep an object; a pod is scheduled at once, or told that no GPU is free."""
        name, kind = obj["metadata"]["name"], obj["kind"]
        self.objects[kind, name] = obj
        if kind != "Pod":
            return
        asked = obj["spec"]["containers"][0]["resources"].get("limits") or {}
        free = [at for at in range(len(self.words.identities)) if at not in self.held.values()]
        if asked and not (asked == {self.vendor.resource: "1"} and free):
            why = f"0/1 nodes are available: 1 Insufficient {next(iter(asked))}."
            unfit = {"type": "PodScheduled", "status": "False", "message": why}
            obj["status"] = {"phase": "Pending", "conditions": [unfit]}
            return
        if asked:
            self.held[name] = free[0]
        obj["spec"]["nodeName"] = "n1"
        obj["status"] = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}

    async def delete(self, _version: str, kind: str, name: str, _namespace: str = "", **_: Any) -> None:
        """Delete an object, a namespace with all that is in it, and give a pod's GPU back."""
        self.objects.pop((kind, name), None)
        inside = [key for key, one in self.objects.items() if one["metadata"].get("namespace") == name]
        for key in inside if kind == "Namespace" else []:
            del self.objects[key]
        self.held.pop(name, None)

    async def events_of(self, _pod: Object) -> Sequence[str]:
        """Return none."""
        return ()

    async def logs(self, _namespace: str, name: str) -> str:
        """Return what a pod's script says, where each of its programs has run."""
        script = self.objects["Pod", name]["spec"]["containers"][0]["command"][-1]
        probe = " ".join(self.vendor.probe.command)
        said = {
            'echo "devices=': "devices=\n",
            'echo "nodes of ': f"nodes of n1: {self.words.device}\n",
            f"echo {self.vendor.devices}": " ".join([self.words.device] * self.shows or [self.vendor.devices]) + "\n",
            probe: self._listed(name) if self.lists else f"sh: 1: {self.vendor.program}: not found\n",
            "echo gpus-listed": "gpus-listed\n",
            self.vendor.sample.path: self.words.passes,
            f'echo "{self.vendor.sample.ended}': f"{self.vendor.sample.ended} 0\n",
            "sleep": "",
        }
        return "".join(
            next(text for start, text in said.items() if part.startswith(start)) for part in script.split("; ")
        )

    def _listed(self, name: str) -> str:
        return f"{self.words.of_one(self.held[name])}\n" if name in self.held else ""


VENDORS = (NVIDIA, AMD)
