"""The verbs of the API on stored objects - create, read, update, patch, apply, delete - without any HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .admission import Admission
from .api_errors import already_exists, bad_request, conflict, invalid, not_found, not_simulated, unsupported_media
from .defaults import canonical_resources, fill_defaults
from .deletion import Deletion
from .list_keys import Shape
from .objects import Obj, copied, name_of, random_suffix, with_metadata
from .patches import merge, merge_patch
from .resources import Resource
from .server_side_apply import apply, track_update
from .validation import validate
from .world import World

MERGE_PATCH, APPLY_PATCH = "application/merge-patch+json", "application/apply-patch+yaml"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
# Groups whose objects count their spec's changes in metadata.generation.
_COUNTED_GROUPS = {"apps", "apiextensions.k8s.io", "batch", "networking.k8s.io", "policy"}
_SERVERS_OWN = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


@dataclass(frozen=True)
class Options:
    """What a write is asked to be like: its manager, a trial only, by force."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    subresource: str = ""


class Api:
    """The objects of a simulated cluster as a client may change them; controllers write to the store directly."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store
        self._admission = Admission(world)
        self.deletion = Deletion(world)

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Return an object. Raises ApiError (404)."""
        found = self._store.get(resource.key, namespace, name)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    def create(self, resource: Resource, namespace: str, body: Obj, options: Options) -> Obj:
        """Store a new object. Raises ApiError (400, 403, 404, 409, 422)."""
        obj = self._checked(resource, namespace, copied(body))
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + random_suffix(self._world.dice)
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "selfLink", "managedFields"):
            metadata.pop(field, None)
        if "status" in resource.subresources and resource.key != "nodes":
            obj.pop("status", None)
        fill_defaults(resource.key, obj, self._world.config.minor)
        obj = track_update(None, obj, options.manager, resource.api_version, Shape(custom=resource.custom))
        return self._insert(resource, namespace, obj, options)

    def _insert(self, resource: Resource, namespace: str, obj: Obj, options: Options) -> Obj:
        """Complete, check and store an object that is not there yet."""
        fill_defaults(resource.key, obj, self._world.config.minor)
        validate(resource, obj, None)
        if self._store.get(resource.key, namespace, name_of(obj)) is not None:
            raise already_exists(resource.plural, resource.group, name_of(obj))
        self._admission.admit(resource, obj, None)
        if self._counts(resource):
            obj["metadata"]["generation"] = 1
        if options.dry_run:
            return obj
        return self._store.create(resource.key, obj)

    def update(self, resource: Resource, namespace: str, name: str, body: Obj, options: Options) -> Obj:
        """Replace an object (or, by subresource, its status alone). Raises ApiError (400, 404, 409, 422)."""
        live = self.get(resource, namespace, name)
        obj = self._checked(resource, namespace, copied(body))
        if name_of(obj) != name:
            raise bad_request(f"the name of the object ({name_of(obj)}) does not match the name on the URL ({name})")
        return self._write(resource, live, obj, options)

    def patch(self, resource: Resource, where: tuple[str, str], kind: str, body: Any, options: Options) -> Obj:
        """Merge a patch into the object at (namespace, name); `apply` has its own verb.

        `kind` is the media type. Raises ApiError (400, 404, 405, 409, 415, 422).
        """
        live = self.get(resource, *where)
        if kind == MERGE_PATCH:
            patched = merge_patch(live, body)
        elif kind == STRATEGIC_PATCH and not resource.custom:
            patched = merge(live, body, Shape(custom=resource.custom), strategic=True)
        else:
            accepted = [MERGE_PATCH, APPLY_PATCH]
            raise unsupported_media(kind, accepted if resource.custom else [*accepted, STRATEGIC_PATCH])
        return self._write(resource, live, self._checked(resource, where[0], copied(patched)), options)

    def apply(self, resource: Resource, namespace: str, name: str, body: Obj, options: Options) -> tuple[Obj, bool]:
        """Apply a configuration on the server's side, with force; return the object and whether it is new.

        Raises ApiError (400, 403, 404, 422, and 405 without force: conflicts are not simulated).
        """
        if not options.force:
            raise not_simulated("applying on the server's side without force is not simulated")
        if not options.manager:
            cause = ("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
            raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
        wanted = self._checked(resource, namespace, copied(body))
        if wanted["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        wanted["metadata"].setdefault("name", name)
        wanted["metadata"].pop("creationTimestamp", None)
        if "status" in resource.subresources and options.subresource != "status":
            wanted.pop("status", None)
        if resource.key == "secrets":
            fill_defaults("secrets", wanted, self._world.config.minor)  # stringData is stored, and owned, as data
        canonical_resources(wanted)
        live = self._store.get(resource.key, namespace, name)
        result = apply(live, wanted, options.manager, resource.api_version, Shape(custom=resource.custom))
        if live is None:
            return self._insert(resource, namespace, copied(result), options), True
        return self._finish(resource, live, copied(result), options), False

    def delete(self, resource: Resource, namespace: str, name: str, body: Obj, *, dry_run: bool = False) -> Obj:
        """Delete an object as its DeleteOptions (`body`) say; return its last state. Raises ApiError (404, 409)."""
        live = self.get(resource, namespace, name)
        wanted = body.get("preconditions") or {}
        if wanted.get("uid") not in {None, live["metadata"]["uid"]}:
            why = (
                f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: "
                f"{live['metadata']['uid']}"
            )
            raise conflict(resource.plural, resource.group, name, why)
        if dry_run:
            return live
        return self.deletion.delete(resource.key, live, body)

    def _counts(self, resource: Resource) -> bool:
        return resource.custom or resource.group in _COUNTED_GROUPS

    def _checked(self, resource: Resource, namespace: str, obj: Any) -> Obj:
        """Return a body with its kind, version, metadata and namespace in order."""
        if not isinstance(obj, dict):
            raise bad_request("the body of the request is not an object")
        if obj.get("kind", resource.kind) != resource.kind:
            raise bad_request(
                f"{obj.get('kind')} in version {resource.version!r} cannot be handled as a {resource.kind}"
            )
        if obj.get("apiVersion", resource.api_version) != resource.api_version:
            raise bad_request(
                f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
                f"({resource.api_version})"
            )
        metadata = obj.get("metadata") or {}
        if resource.namespaced:
            if metadata.get("namespace", namespace) != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        rest = {key: value for key, value in obj.items() if key not in {"apiVersion", "kind", "metadata"}}
        return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **rest}

    def _write(self, resource: Resource, live: Obj, obj: Obj, options: Options) -> Obj:
        version = obj["metadata"].get("resourceVersion")
        if version and version != live["metadata"]["resourceVersion"]:
            raise conflict(resource.plural, resource.group, name_of(live))
        obj["metadata"].pop("managedFields", None)
        obj = self._parts(resource, live, obj, options.subresource)
        fill_defaults(resource.key, obj, self._world.config.minor)
        tracked = track_update(
            live,
            obj,
            options.manager,
            resource.api_version,
            Shape(custom=resource.custom),
            subresource=options.subresource,
        )
        return self._finish(resource, live, tracked, options)

    def _parts(self, resource: Resource, live: Obj, obj: Obj, subresource: str) -> Obj:
        """Return the new state with the parts that this request may not touch taken from the live one."""
        if subresource in {"status", "scale"}:
            part = "status" if subresource == "status" else "spec"
            return {**copied(live), part: obj.get(part, {})}
        if "status" in resource.subresources:
            obj.pop("status", None)
            if "status" in live:
                obj["status"] = copied(live["status"])
        return obj

    def _finish(self, resource: Resource, live: Obj, obj: Obj, options: Options) -> Obj:
        """Complete, check and store the new state of an object that is there."""
        kept = {field: live["metadata"].get(field) for field in _SERVERS_OWN}
        obj = with_metadata(obj, **kept, resourceVersion=live["metadata"]["resourceVersion"])
        if "status" in resource.subresources and options.subresource != "status" and "status" in live:
            obj["status"] = copied(live["status"])
        fill_defaults(resource.key, obj, self._world.config.minor)
        validate(resource, obj, live)
        self._admission.admit(resource, obj, live)
        if self._counts(resource) and _without_metadata(obj) != _without_metadata(live):
            obj["metadata"]["generation"] = int(live["metadata"].get("generation", 0)) + 1
        if options.dry_run:
            return obj
        stored = self._store.replace(resource.key, obj)
        self.deletion.finish(resource.key, stored)
        return stored


def _without_metadata(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}
