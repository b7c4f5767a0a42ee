"""The step about the plugin of one class of GPUs.

Its configuration changes only while no pod holds a GPU of it, and so does anything of MPS's daemon: whoever computes
through it loses its work with it, whatever it is made anew for.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipway.errors import Refused
from shipway.gpu.chosen import VENDOR
from shipway.gpu.owners import find_owner
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.step import Drift
from shipway.steps.gpu.class_held import plugins_of, runs_for
from shipway.steps.gpu.classes import class_of, who_holds
from shipway.steps.gpu.device_list import PluginPresent
from shipway.steps.kubernetes.objects import ObjectsPresent


@dataclass(frozen=True)
class ClassPresent(PluginPresent):
    """The plugin of a class of GPUs is as declared; its configuration changes only while no pod holds a GPU of it."""

    gpu_class: str = ""

    async def check(self, on: Kube) -> Drift | None:
        """Compare the objects. Raises Refused SHW-657 where somebody else's plugin offers the GPUs."""
        if owner := await find_owner(on):
            fix = "Have the GPUs shared there, and take `gpu.classes`, `gpu.sharing` and `gpu_class` out of the file."
            message = f"GPU class {self.gpu_class} is declared, and the GPUs are offered by {owner}"
            raise Refused(message, code="SHW-657", fix=fix)
        return await super().check(on)

    async def hold(self, on: Kube) -> str:
        """Return why it may not be as declared yet: hosts that are not ready, or pods that hold GPUs of the class.

        Pods that hold GPUs forbid what makes the plugin's configuration another one, or MPS's daemon anew.
        """
        live = await plugins_of(on, self.gpu_class)
        declared = [obj for obj in await self._load() if obj["kind"] == "DaemonSet"]
        there = [(one, live[name]) for one in declared if (name := one["metadata"]["name"]) in live]
        changed = any(runs_for(now) != runs_for(one) for one, now in there)
        if changed or await ObjectsPresent("MPS's daemon", [one for one, _ in there if _is_daemon(one)]).check(on):
            nodes = [name for name, node in (await nodes_by_name(on)).items() if class_of(node) == self.gpu_class]
            if who := await who_holds(on, nodes):
                return who
        return await super().hold(on)


def _is_daemon(daemon_set: Object) -> bool:
    """Say whether a DaemonSet is that of MPS's daemon."""
    classes = VENDOR.plugin.classes
    return classes is not None and daemon_set["metadata"]["name"].startswith(f"{classes.daemon_set_of_daemon}-")
