"""Pods made and deleted by controllers: defaulted and admitted as if a client had sent them, with their events."""

from __future__ import annotations

from lab.simulated.kube.admission import Admission
from lab.simulated.kube.api_errors import ApiError
from lab.simulated.kube.defaults import fill_defaults
from lab.simulated.kube.deletion import Deletion
from lab.simulated.kube.objects import Obj, name_of, namespace_of, owner_reference
from lab.simulated.kube.world import World

_SOURCES = {"DaemonSet": "daemonset-controller", "ReplicaSet": "replicaset-controller"}


class PodFactory:
    """Creates and deletes the pods of controllers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pods = world.resources.by_key("pods")
        self._admission = Admission(world)
        self._deletion = Deletion(world)

    def create(self, owner: Obj, metadata: Obj, spec: Obj) -> bool:
        """Create a pod for an owner; say whether it was admitted. A refusal becomes the owner's FailedCreate event."""
        metadata = {key: value for key, value in metadata.items() if value is not None}
        metadata |= {"namespace": namespace_of(owner), "ownerReferences": [owner_reference(owner)]}
        pod: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        source = _SOURCES.get(owner["kind"], "controller")
        try:
            fill_defaults("pods", pod, self._world.config.minor)
            self._admission.admit(self._pods, pod, None)
        except ApiError as error:
            self._world.event(owner, "FailedCreate", f"Error creating: {error.message}", source)
            return False
        self._world.store.create("pods", pod)
        self._world.event(owner, "SuccessfulCreate", f"Created pod: {name_of(pod)}", source)
        return True

    def delete(self, pod: Obj) -> None:
        """Delete a pod as its controller would: gracefully."""
        if not pod["metadata"].get("deletionTimestamp"):
            self._deletion.delete("pods", pod, {})
