"""Classes of GPUs: how the hosts of each are to share them, and the objects that bring it about.

A class is a label of its nodes, a configuration of the device plugin, and a DaemonSet of the plugin for just these
nodes; nodes without the label have the plugin as it always is. There is no sidecar that picks a configuration by a
label, as NVIDIA's chart has it: one that names none it knows changes nothing, and says nothing.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from shipway.cluster.model import Cluster
from shipway.cluster.parts import CLAIMED, EXCLUSIVE, GpuClass
from shipway.foreign.yaml import write_yaml
from shipway.gpu.chosen import VENDOR
from shipway.gpu.sharing import CLASS_LABEL, Sharing, Way
from shipway.gpu.vendor import PluginClasses, Vendor
from shipway.kube.client import Object
from shipway.kube.manifests import render

LABEL = CLASS_LABEL
CONFIG = "shipway.dev/gpu-class-config"  # an annotation of the plugin's pods: a new configuration makes new ones
MANAGED = {"app.kubernetes.io/managed-by": "shipway"}
OURS = ",".join((*(f"{key}={value}" for key, value in MANAGED.items()), LABEL))  # selects what is made for classes
_WAYS: dict[str, Way] = {"time-slicing": "time slicing", "mps": "MPS", "mig-single": "MIG", "mig-mixed": "MIG"}
_FOLDER, _FILE = "/config", "config.yaml"


def sharing_of(shared: GpuClass) -> Sharing:
    """Return how a class shares GPUs, as a plugin that does so is read."""
    return Sharing(_WAYS.get(shared.sharing, "exclusive"), shared.replicas or 1)


def declared_sharing(cluster: Cluster, held: Collection[str] = ()) -> dict[str, Sharing]:
    """Return by node how its GPUs are to be shared; of no node where no class is declared: then what is seen counts.

    It does of the nodes that are `held` as well: they share their GPUs as before for as long as pods hold some.
    """
    known = cluster.gpu.classes
    if not known:
        return {}
    names = {host.name: cluster.gpu_class_of(host) for host in cluster.hosts if host.gpus != 0}
    names = {host: name for host, name in names.items() if host not in held}
    return {host: sharing_of(known[name]) if name in known else Sharing() for host, name in names.items()}


def label_of(cluster: Cluster, host: str) -> str | None:
    """Return the class that a node is labelled with; None where it has its GPUs for one pod each."""
    if cluster.gpu.mode == "dra":
        return CLAIMED
    name = cluster.gpu_class_of(cluster.host(host))
    return None if name == EXCLUSIVE else name


def daemon_sets(cluster: Cluster, held: Collection[str] = (), vendor: Vendor = VENDOR) -> list[str]:
    """Return the names of the DaemonSets by which GPUs are offered; none of a class of which every host is `held`."""
    if cluster.gpu.mode == "dra" and vendor.claims:
        comes = any(host.gpus != 0 and host.name not in held for host in cluster.hosts)
        return [vendor.claims.daemon_set] if comes else []
    names, classes = [vendor.plugin.daemon_set], vendor.plugin.classes
    if classes is None:
        return names
    used = {cluster.gpu_class_of(host) for host in cluster.hosts if host.gpus != 0 and host.name not in held}
    for name, shared in cluster.gpu.classes.items():
        if name not in used:
            continue
        names.append(f"{classes.daemon_set}-{name}")
        names += [f"{classes.daemon_set_of_daemon}-{name}"] if shared.sharing == "mps" else []
    return names


def config_text(shared: GpuClass, classes: PluginClasses) -> str:
    """Return the configuration of a class as its plugin reads it."""
    return write_yaml(classes.config_of(shared))


def digest_of(text: str) -> str:
    """Return what a plugin's pods carry of the configuration that they were made for (the annotation `CONFIG`)."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def off_classes(daemon_set: Object) -> Object:
    """Return a plugin's DaemonSet that stays off the nodes of every class."""
    made: Object = copy.deepcopy(daemon_set)
    terms = [{"matchExpressions": [{"key": LABEL, "operator": "DoesNotExist"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    made["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": required}
    return made


def leaves_classes(daemon_set: Object) -> bool:
    """Say whether a plugin's DaemonSet stays off the nodes of every class."""
    return LABEL in str(daemon_set["spec"]["template"]["spec"].get("affinity"))


def class_objects(cluster: Cluster, name: str, daemon_set: Object, vendor: Vendor = VENDOR) -> list[Object]:
    """Return what a class is in the cluster: the plugin's configuration, the plugin that reads it, MPS's daemon."""
    classes, shared = vendor.plugin.classes, cluster.gpu.classes[name]
    if classes is None:
        return []
    text = config_text(shared, classes)
    title = f"{classes.daemon_set}-{name}"
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": title, "namespace": vendor.plugin.namespace, "labels": {**MANAGED, LABEL: name}},
        "data": {_FILE: text},
    }
    plugin = _of_class(daemon_set, name, title, text, classes)
    if shared.sharing != "mps":
        return [config, plugin]
    pod = plugin["spec"]["template"]["spec"]
    _add(pod, {"MPS_ROOT": classes.root}, _mps_mounts(classes))
    if cluster.gpu.mode == "cdi":  # it asks the daemon by a program of the vendor's, which its runtime brings
        pod["runtimeClassName"] = vendor.handler
    return [config, plugin, *_daemon(cluster, name, plugin, vendor, classes)]


def _of_class(daemon_set: Object, name: str, title: str, text: str, classes: PluginClasses) -> Object:
    """Return a plugin's DaemonSet for the nodes of one class, with its configuration mounted."""
    made: Object = copy.deepcopy(daemon_set)
    labels = {**classes.labels, LABEL: name}
    made["metadata"] = {**made["metadata"], "name": title, "labels": {**MANAGED, LABEL: name}}
    spec, template = made["spec"], made["spec"]["template"]
    spec["selector"] = {"matchLabels": labels}
    template["metadata"] = {"labels": labels, "annotations": {CONFIG: digest_of(text)}}
    pod = template["spec"]
    pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), LABEL: name}
    _add(pod, {"CONFIG_FILE": f"{_FOLDER}/{_FILE}"}, {_FOLDER: ("config", {"configMap": {"name": title}})})
    return made


def _mps_mounts(classes: PluginClasses) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return where plugin and daemon meet; the second is memory that the daemon has made, and every client shares."""
    root = {"path": classes.root, "type": "DirectoryOrCreate"}
    shm = {"path": f"{classes.root}/shm"}
    return {"/mps": ("mps-root", {"hostPath": root}), "/dev/shm": ("mps-shm", {"hostPath": shm})}  # noqa: S108


def claim_objects(cluster: Cluster, vendor: Vendor = VENDOR) -> list[Object]:
    """Return the driver by which pods claim GPUs, for the nodes whose GPUs are claimed; none where there is none."""
    claims = vendor.claims
    if claims is None:
        return []
    return render(
        claims.manifest,
        name=claims.daemon_set,
        labels={**MANAGED, LABEL: CLAIMED},
        pod_labels=dict(claims.labels),
        node_selector={vendor.label: "true", LABEL: CLAIMED},
        image=f"{cluster.dra_driver.image}:v{cluster.dra_driver.version}",
        device_class=claims.device_class,
        driver=claims.driver,
    )


def _add(pod: Object, variables: Mapping[str, str], mounts: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
    """Add variables and mounts, each with its volume, to the plugin's container."""
    container = pod["containers"][0]
    container.setdefault("env", []).extend({"name": key, "value": value} for key, value in variables.items())
    for path, (volume, source) in mounts.items():
        container.setdefault("volumeMounts", []).append({"name": volume, "mountPath": path})
        pod.setdefault("volumes", []).append({"name": volume, **source})


def _daemon(cluster: Cluster, name: str, plugin: Object, vendor: Vendor, classes: PluginClasses) -> list[Object]:
    """Return MPS's control daemon for the nodes of a class; it needs the vendor's programs, so its runtime as well."""
    template = plugin["spec"]["template"]
    handler = None if cluster.gpu.mode == "default_runtime" else vendor.handler or None
    return render(
        classes.daemon,
        name=f"{classes.daemon_set_of_daemon}-{name}",
        gpu_class=name,
        image=template["spec"]["containers"][0]["image"],
        runtime_class=handler,
        node_selector=template["spec"]["nodeSelector"],
        config=plugin["metadata"]["name"],
        digest=template["metadata"]["annotations"][CONFIG],
        root=classes.root,
    )
