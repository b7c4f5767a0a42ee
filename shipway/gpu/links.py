"""Which link between a GPU and a pod is broken: found from what was seen, without asking anything more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from shipway.gpu.chosen import VENDOR
from shipway.gpu.pods import EXTRA, SHOWN
from shipway.gpu.seen import Evidence, PodSeen
from shipway.gpu.vendor import Vendor
from shipway.known_failures.catalogue import diagnose
from shipway.redact import keep_ends

LinkName = Literal[
    "GPU",
    "driver",
    "toolkit",
    "runtime",
    "RuntimeClass",
    "scheduler",
    "plugin",
    "kubelet",
    "image",
    "compute",
    "unknown",
]
UNBAR = (
    "Uncordon or untaint it, or declare `gpus: 0` where it is to stay closed. One that a killed run of Shipway closed "
    "(annotation shipway.dev/cordoned-by) is opened by the next drift repair."
)
IMAGE_FAULTS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


@dataclass(frozen=True, slots=True)
class Link:
    """The broken link: its name, its catalogue code, what shows that it is broken, and what to do."""

    name: LinkName
    code: str
    why: str
    fix: str


def find_broken_link(evidence: Evidence, vendor: Vendor = VENDOR) -> Link:
    """Return the first broken link, in the order in which they build on each other; `unknown` with what was said."""
    for name, code, rule, fix in rules(vendor):
        why = next(rule(evidence, vendor), None)
        if why is not None:
            known = diagnose(why) if name == "driver" else None  # the driver's own words say which fault it is
            return Link(name, known.code, why, known.fix) if known else Link(name, code, why, fix)
    said = [f"{pod.name}: {pod.why or (pod.events or ('nothing',))[-1]}" for pod in evidence.pods if not pod.runs]
    why = "; ".join(said[:3]) or evidence.refusal or "nothing that was seen shows it"
    return Link("unknown", "SHW-610", why, "Read the evidence; see `kubectl -n shipway-verify describe pods`.")


def _pods(evidence: Evidence) -> Iterator[PodSeen]:
    """Yield all pods that tell something: the test's and the plugin's."""
    yield from evidence.pods
    yield from (node.plugin for node in evidence.nodes if node.plugin is not None)


def _say(evidence: Evidence, *patterns: str) -> Iterator[str]:
    """Yield for each pod, and for a refusal, the line that one of the patterns is found in."""
    texts = [(pod.name + (f" on {pod.node}" if pod.node else ""), pod.text) for pod in _pods(evidence)]
    for name, text in [*texts, ("the API", evidence.refusal)]:
        lines = [
            line for line in text.splitlines() if any(re.search(pattern, line, re.IGNORECASE) for pattern in patterns)
        ]
        if lines:
            yield f"{name}: {keep_ends(lines[-1], SHOWN)}"


def _gpu(evidence: Evidence, _vendor: Vendor) -> Iterator[str]:
    for node in evidence.nodes:
        if node.host.pci is not None and node.host.pci < node.expected:
            yield f"{node.name}: PCI shows {node.host.pci} of {node.expected} GPUs"
        # A plugin that has ended leaves capacity as it was and takes allocatable to 0: only one that runs has judged.
        elif node.plugin and node.plugin.runs and node.allocatable < node.wanted <= node.capacity:
            sick = node.capacity - node.allocatable
            yield f"{node.name}: the plugin reports {sick} of {node.capacity} GPUs as unhealthy"


def _driver(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    for node in evidence.nodes:
        if node.host.driver is not None and node.host.driver < node.expected:
            said = f": {' '.join(node.host.driver_said.split())}" if node.host.driver_said else ""
            yield f"{node.name}: {vendor.program} lists {node.host.driver} of {node.expected} GPUs{said}"
    yield from _say(evidence, *vendor.driver_failed)


def _toolkit(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    program = vendor.toolkit.command[0] if vendor.toolkit else ""
    yield from (
        f"{node.name}: {program} is not there"
        for node in evidence.nodes
        if node.expected and node.host.toolkit is False
    )
    yield from _say(evidence, *(vendor.runtime.no_program if vendor.runtime else ()))


def _runtime(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    if vendor.runtime is None:
        return
    handler = vendor.runtime.handler
    yield from _say(evidence, *vendor.runtime.no_handler)
    for node in evidence.nodes:
        default = node.host.default_runtime
        if node.expected and node.host.handler is False:
            yield f"{node.name}: containerd has no runtime named {handler}"
        elif node.expected and evidence.mode == "default_runtime" and default not in (None, handler):
            yield f"{node.name}: containerd's default runtime is {default or 'not set'}, not {handler}"


def _runtime_class(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    wanted = vendor.runtime_class(evidence.mode)
    if wanted and evidence.handler != wanted:
        yield f"its handler is {evidence.handler}" if evidence.handler else f"there is no RuntimeClass {wanted}"
    yield from _say(evidence, r"RuntimeClass \"\S+\" not found", r"runtimeclasses\S* \"\S+\" not found")


def _scheduler(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    yield from (
        f"{node.name} takes no ordinary pods: {node.barred}" for node in evidence.nodes if node.expected and node.barred
    )
    if all(node.allocatable >= node.wanted for node in evidence.nodes):
        # The further pod is meant to wait for a GPU: that it does is no fault of the scheduler's.
        meant = tuple(pod for pod in evidence.pods if not _waits_as_meant(pod, vendor))
        yield from _say(replace(evidence, pods=meant), r"FailedScheduling", r"nodes are available")


def _waits_as_meant(pod: PodSeen, vendor: Vendor) -> bool:
    return pod.name.startswith(EXTRA) and any(word in pod.text for word in vendor.lacking)


def _plugin(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    if not evidence.plugin_declared:
        yield f"the {'driver of claims' if evidence.mode == 'dra' else 'device plugin'}'s DaemonSet is not there"
    for node in evidence.nodes:
        if otherwise := node.offer.differs(node.declared):
            yield f"{node.name}: {otherwise}"
        pod = node.plugin
        if not node.expected or node.why_not_ready or (node.allocatable == node.wanted and pod is not None):
            continue
        if pod is None:
            why = "" if node.labelled else f", as the node has no label {vendor.label}=true"
            yield f"{node.name}: no plugin pod{why}"
        elif not pod.runs:
            why = pod.why or (pod.events or ("",))[-1]
            phase = "starting again and again" if pod.phase == "Running" else pod.phase or "not started"
            yield f"{node.name}: its pod {pod.name} is {phase}: {why}"
        elif vendor.plugin.is_blind(pod.log):
            yield f"{node.name}: its pod {pod.name} is Running and sees no GPU"
        elif node.allocatable > node.wanted:
            how = "nothing tells how it shares them" if node.offer.way == "exclusive" else f"by {node.offer.way}"
            yield f"{node.name}: it offers {node.allocatable} where {node.expected} GPUs make {node.wanted}; {how}"
    yield from _say(evidence, r"the same GPU was given to")


def _kubelet(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    yield from (f"{node.name} is not Ready: {node.why_not_ready}" for node in evidence.nodes if node.why_not_ready)
    for node in evidence.nodes:
        registered = node.plugin is not None and vendor.plugin.registered in node.plugin.log
        if registered and node.allocatable < node.wanted:
            some = f"{node.allocatable} of {node.wanted}"
            yield f"{node.name}: the plugin is registered, yet {some} GPUs are allocatable"
    yield from _say(evidence, r"UnexpectedAdmissionError", r"Allocate failed due to", r"FailedPrepareDynamicResources")


def _image(evidence: Evidence, _vendor: Vendor) -> Iterator[str]:
    yield from _say(evidence, *IMAGE_FAULTS, r"Failed to pull image")


def _fabric(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    yield from _say(evidence, *(vendor.fabric.not_ready if vendor.fabric else ()))


def _compute(evidence: Evidence, vendor: Vendor) -> Iterator[str]:
    yield from _say(evidence, *vendor.sample.failed, rf"{re.escape(vendor.sample.ended)} [1-9]")


Rule = Callable[[Evidence, Vendor], Iterator[str]]


def rules(vendor: Vendor) -> tuple[tuple[LinkName, str, Rule, str], ...]:
    """Return the links of a vendor in the order in which they build on each other: code, what shows it, what to do."""
    links: tuple[tuple[LinkName, str, Rule, str], ...] = (
        (
            "GPU",
            "SHW-601",
            _gpu,
            f"Look at `{vendor.bus}` and `{vendor.kernel_log}` on it; correct `gpus` if the number is wrong.",
        ),
        (
            "driver",
            "SHW-602",
            _driver,
            f"Run `{vendor.program}` on it; after a kernel or driver upgrade `dkms status`, then reboot.",
        ),
        ("toolkit", "SHW-603", _toolkit, f"Run again: the stage {vendor.stage} installs {vendor.toolkit_package}."),
        (
            "runtime",
            "SHW-604",
            _runtime,
            f"Compare `containerd config dump` on it; run again: {vendor.stage} configures the handler.",
        ),
        (
            "RuntimeClass",
            "SHW-605",
            _runtime_class,
            f"Run again: the stage device_plugin makes it. See `kubectl get runtimeclass {vendor.handler}`.",
        ),
        ("scheduler", "SHW-609", _scheduler, UNBAR),
        (
            "image",
            "SHW-608",
            _image,
            "Check gpu.verify_image and device_plugin.image, and sources.registry_mirrors; pull it by hand.",
        ),
        (
            "plugin",
            "SHW-606",
            _plugin,
            f"See `kubectl -n {vendor.plugin.namespace} logs -l '{vendor.plugin.selector}'`, then run again.",
        ),
        (
            "kubelet",
            "SHW-607",
            _kubelet,
            "See `journalctl -u kubelet` on it; restart the plugin's pod, then the kubelet.",
        ),
        (
            "compute",
            "SHW-611",
            _fabric,
            f"On {vendor.fabric_needs} must run in the driver's own version: start it.",
        ),
        (
            "compute",
            "SHW-612",
            _compute,
            f"Run the sample by hand on the node; gpu.compute: off where the GPUs cannot run {vendor.sample.needs}.",
        ),
    )
    there: dict[Rule, object] = {
        _toolkit: vendor.toolkit,
        _runtime: vendor.runtime,
        _runtime_class: vendor.runtime,
        _fabric: vendor.fabric,
    }
    return tuple(link for link in links if there.get(link[2], link))
