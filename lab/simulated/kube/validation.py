"""The refusals of the real API that a cluster installer can run into (HTTP 422), in its words."""

from __future__ import annotations

import json
import re

from .api_errors import invalid
from .objects import Obj, dig
from .resources import Resource
from .selectors import selects

Cause = tuple[str, str, str]
MAX_ANNOTATIONS = 256 * 1024  # bytes of all keys and values together
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RBAC_NAME = re.compile(r"[^/%]+")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def validate(resource: Resource, obj: Obj, before: Obj | None) -> None:
    """Pass a well-formed object. Raises ApiError (422) that names every fault found."""
    causes = _metadata(resource, obj)
    if resource.key in {"daemonsets.apps", "deployments.apps", "replicasets.apps"}:
        causes += _workload(obj, before)
    elif resource.key == "pods":
        causes += _pod(obj, before)
    elif resource.key.endswith("rolebindings.rbac.authorization.k8s.io") and before is not None:
        if obj.get("roleRef") != before.get("roleRef"):
            value = json.dumps(obj.get("roleRef"))
            causes.append(("roleRef", "FieldValueInvalid", f"Invalid value: {value}: cannot change roleRef"))
    elif resource.key == "customresourcedefinitions.apiextensions.k8s.io":
        causes += _definition(obj)
    if causes:
        raise invalid(resource.kind, resource.group, str(obj["metadata"].get("name", "")), causes)


def _metadata(resource: Resource, obj: Obj) -> list[Cause]:
    name = str(obj["metadata"].get("name") or "")
    if not name:
        return [("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")]
    causes: list[Cause] = []
    rule = _RBAC_NAME if resource.group == "rbac.authorization.k8s.io" else _SUBDOMAIN
    if not rule.fullmatch(name):
        causes.append(("metadata.name", "FieldValueInvalid", f"Invalid value: {json.dumps(name)}: {_NAME_RULE}"))
    annotations = obj["metadata"].get("annotations") or {}
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        text = f"Too long: must have at most {MAX_ANNOTATIONS} bytes"
        causes.append(("metadata.annotations", "FieldValueTooLong", text))
    return causes


def _containers(spec: Obj, where: str) -> list[Cause]:
    containers = spec.get("containers") or []
    if not containers:
        return [(f"{where}.containers", "FieldValueRequired", "Required value")]
    causes: list[Cause] = []
    for at, container in enumerate(containers):
        causes.extend(
            (f"{where}.containers[{at}].{field}", "FieldValueRequired", "Required value")
            for field in ("name", "image")
            if not container.get(field)
        )
    return causes


def _workload(obj: Obj, before: Obj | None) -> list[Cause]:
    selector = dig(obj, "spec", "selector", default={})
    labels = dig(obj, "spec", "template", "metadata", "labels", default={})
    if not selector:
        return [("spec.selector", "FieldValueRequired", "Required value")]
    causes = _containers(obj["spec"]["template"]["spec"], "spec.template.spec")
    if not selects(selector, labels):
        text = f"Invalid value: {json.dumps(labels)}: `selector` does not match template `labels`"
        causes.append(("spec.template.metadata.labels", "FieldValueInvalid", text))
    if before is not None and dig(before, "spec", "selector") != selector:
        text = f"Invalid value: {json.dumps(selector)}: field is immutable"
        causes.append(("spec.selector", "FieldValueInvalid", text))
    return causes


_POD_MAY_CHANGE = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName"}


def _pod(obj: Obj, before: Obj | None) -> list[Cause]:
    if before is None:
        return _containers(obj["spec"], "spec")

    def frozen(pod: Obj) -> Obj:
        spec = {key: value for key, value in pod["spec"].items() if key not in _POD_MAY_CHANGE}
        for kind in ("containers", "initContainers"):
            spec[kind] = [{**container, "image": ""} for container in spec.get(kind) or []]
        return spec

    if frozen(obj) == frozen(before):
        return []
    fields = (
        "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
        "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it "
        "was previously negative)"
    )
    return [("spec", "FieldValueForbidden", f"Forbidden: pod updates may not change fields other than {fields}")]


def _definition(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    wanted = f"{dig(spec, 'names', 'plural', default='')}.{spec.get('group', '')}"
    causes: list[Cause] = []
    if obj["metadata"].get("name") != wanted:
        value = json.dumps(obj["metadata"].get("name"))
        causes.append(
            ("metadata.name", "FieldValueInvalid", f'Invalid value: {value}: must be spec.names.plural+"."+spec.group')
        )
    if not spec.get("versions"):
        causes.append(("spec.versions", "FieldValueRequired", "Required value"))
    return causes
