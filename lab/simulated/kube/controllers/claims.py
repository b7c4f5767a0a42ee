"""Claims of devices (DRA): made for pods from their templates, allocated by the scheduler out of what drivers offer.

A stand-in for the claim controller and the scheduler's plugin, as far as whole devices of one class go: a class is known
by the driver that its expression names, and every device of that driver fits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.simulated.kube.objects import Obj, copied, dig, key_of, name_of, with_status
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World, is_finished

CLAIMS, TEMPLATES = "resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io"
SLICES, CLASSES = "resourceslices.resource.k8s.io", "deviceclasses.resource.k8s.io"
LACKING = "cannot allocate all claims"
_DRIVER = re.compile(r"device\.driver == '([^']+)'")
Choice = dict[str, list[tuple[str, str]]]  # claim's name: (request, device) of the node


def claims_of(pod: Obj) -> dict[str, str]:
    """Return the claims of a pod by the names that it has for them, "" where one is not made yet."""
    made = {one["name"]: one["resourceClaimName"] for one in dig(pod, "status", "resourceClaimStatuses", default=[])}
    asked = pod["spec"].get("resourceClaims") or []
    return {one["name"]: str(one.get("resourceClaimName") or made.get(one["name"], "")) for one in asked}


def is_waiting(pod: Obj) -> bool:
    """Say whether a claim of a pod is not made yet: the scheduler does not look at such a pod."""
    return "" in claims_of(pod).values()


class Claims:
    """The claims of all pods."""

    def __init__(self, world: World) -> None:
        self._world, self._store = world, world.store
        self._store.listen(["pods"], self._pod_changed)
        self._store.listen([TEMPLATES], self._template_changed)

    def _pod_changed(self, change: Change) -> None:
        pod = change.obj
        if not pod["spec"].get("resourceClaims"):
            return
        if change.kind == DELETED or is_finished(pod):
            self._release(pod, gone=change.kind == DELETED)
        elif is_waiting(pod) and (now := self._store.get("pods", *key_of(pod))) is not None and is_waiting(now):
            self._make(now)

    def _template_changed(self, change: Change) -> None:
        for pod in self._store.objects("pods", change.obj["metadata"]["namespace"]):
            if pod["spec"].get("resourceClaims") and is_waiting(pod):
                self._make(pod)

    def _make(self, pod: Obj) -> None:
        """Make a pod's claims from their templates; one without a template waits for it."""
        space, statuses = pod["metadata"]["namespace"], dig(pod, "status", "resourceClaimStatuses", default=[])
        known = {one["name"] for one in statuses}
        for asked in pod["spec"]["resourceClaims"]:
            template = self._store.get(TEMPLATES, space, str(asked.get("resourceClaimTemplateName", "")))
            if template is None or asked["name"] in known:
                continue
            owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": pod["metadata"]["uid"]}
            name = self._store.unused_name(CLAIMS, space, f"{name_of(pod)}-{asked['name']}-")
            metadata = {"name": name, "namespace": space, "ownerReferences": [{**owner, "controller": True}]}
            spec = copied(template["spec"]["spec"])
            claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": spec}
            self._store.create(CLAIMS, {**claim, "status": {}})
            statuses = [*statuses, {"name": asked["name"], "resourceClaimName": name}]
        if len(statuses) > len(known):
            self._store.replace("pods", with_status(pod, resourceClaimStatuses=statuses))

    def _release(self, pod: Obj, *, gone: bool) -> None:
        """Take back what a pod has reserved; a claim that was made for it goes with it."""
        space, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        for name in claims_of(pod).values():
            claim = self._store.get(CLAIMS, space, name)
            if claim is None:
                continue
            if gone and any(one["uid"] == uid for one in claim["metadata"].get("ownerReferences") or []):
                self._store.remove(CLAIMS, space, name)
                continue
            kept = [one for one in dig(claim, "status", "reservedFor", default=[]) if one["uid"] != uid]
            status = {**claim["status"], "reservedFor": kept} if kept else {}
            self._store.replace(CLAIMS, {**claim, "status": status})

    def choose(self, pod: Obj, node: str) -> Choice | None:
        """Return which devices of a node a pod's claims get that have none yet; None where one would get too few."""
        taken = {(one["driver"], one["pool"], one["device"]) for claim in self._all() for one in results_of(claim)}
        chosen: Choice = {}
        for name in claims_of(pod).values():
            claim = self._store.get(CLAIMS, pod["metadata"]["namespace"], name)
            if claim is None:
                return None
            if results := results_of(claim):
                if any(one["pool"] != node for one in results):
                    return None
                continue
            chosen[name] = []
            for request in claim["spec"]["devices"]["requests"]:
                exactly = request["exactly"]
                driver = self._driver(exactly["deviceClassName"])
                free = [one for one in self._devices(node, driver) if (driver, node, one) not in taken]
                wanted = int(exactly.get("count", 1))
                if len(free) < wanted:
                    return None
                chosen[name] += [(request["name"], one) for one in free[:wanted]]
                taken |= {(driver, node, one) for one in free[:wanted]}
        return chosen

    def allocate(self, pod: Obj, node: str, chosen: Choice) -> None:
        """Write down what was chosen for a pod, and that it has reserved its claims."""
        space = pod["metadata"]["namespace"]
        user = {"resource": "pods", "name": name_of(pod), "uid": pod["metadata"]["uid"]}
        for name in claims_of(pod).values():
            claim = self._store.get(CLAIMS, space, name)
            if claim is None:
                continue
            status = dict(claim.get("status") or {})
            if name in chosen:
                drivers = {
                    one["name"]: self._driver(one["exactly"]["deviceClassName"])
                    for one in claim["spec"]["devices"]["requests"]
                }
                results = [
                    {"request": request, "driver": drivers[request], "pool": node, "device": device}
                    for request, device in chosen[name]
                ]
                status["allocation"] = {"devices": {"results": results}}
            status["reservedFor"] = [*(status.get("reservedFor") or []), user]
            self._store.replace(CLAIMS, {**claim, "status": status})

    def uuids(self, pod: Obj, names: list[str]) -> list[str]:
        """Return the GPUs of those claims that a container names."""
        found: list[str] = []
        for name, claim_name in claims_of(pod).items():
            claim = self._store.get(CLAIMS, pod["metadata"]["namespace"], claim_name)
            for one in results_of(claim) if claim and name in names else ():
                devices = {device["name"]: device for device in self._offered(one["pool"], one["driver"])}
                found.append(str(dig(devices[one["device"]], "attributes", "uuid", "string")))
        return found

    def _all(self) -> Iterator[Obj]:
        yield from self._store.objects(CLAIMS)

    def _driver(self, device_class: str) -> str:
        found = self._store.get(CLASSES, "", device_class)
        texts = [one["cel"]["expression"] for one in dig(found or {}, "spec", "selectors", default=[])]
        return next((match[1] for text in texts if (match := _DRIVER.search(text))), "")

    def _offered(self, node: str, driver: str) -> Iterator[Obj]:
        for one in self._store.objects(SLICES):
            if (one["spec"].get("nodeName"), one["spec"]["driver"]) == (node, driver):
                yield from one["spec"].get("devices") or ()

    def _devices(self, node: str, driver: str) -> list[str]:
        """Return the devices that pods may have: no claim here tolerates a taint."""
        return [str(one["name"]) for one in self._offered(node, driver) if not _keeps_off(one)]


def _keeps_off(device: Obj) -> bool:
    return any(one.get("effect") in ("NoSchedule", "NoExecute") for one in device.get("taints") or ())


def results_of(claim: Obj) -> list[Obj]:
    """Return the devices that a claim was allocated."""
    return list(dig(claim, "status", "allocation", "devices", "results", default=[]))
