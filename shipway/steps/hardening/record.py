"""kubeadm's record of the cluster has what hardening adds: joining control planes and upgrades go by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.model import Cluster
from shipway.edits.yaml import with_values
from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.foreign.yaml import read_yaml, write_yaml
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.record import KEY, RECORD, SYSTEM, find_record
from shipway.kubeadm import hardening
from shipway.kubeadm.hardening import MOUNTS, PARTS, SECTIONS
from shipway.kubeadm.writes import MANIFESTS
from shipway.step import Drift, Impact
from shipway.steps.hardening.manifest import Wanted, new_manifest, wanted_of


@dataclass(frozen=True)
class HardeningRemembered:
    """kubeadm-config names the flags and mounts of hardening that are declared, and none of ours that is not."""

    cluster: Cluster = field(hash=False)
    name: str = "kubeadm-config has what hardening adds"

    def changes(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sections that are to be otherwise; what others put there stays."""
        wanted = {}
        for part in PARTS:
            section = config.get(SECTIONS[part]) or {}
            have = {key: section[key] for key in ("extraArgs", "extraVolumes") if section.get(key)}
            if (changed := _section(part, section, wanted_of(self.cluster, part))) != have:
                wanted[SECTIONS[part]] = changed
        return wanted

    async def check(self, on: Kube) -> Drift | None:
        """Compare. Raises Blocked where the record is lost."""
        _, config = await find_record(on)
        wrong = self.changes(config)
        if not wrong:
            return None
        want = "what `shipway harden FILE` puts there: kubeadm's upgrades and joins go by it"
        return Drift(f"{', '.join(wrong)} without what is declared, or with more", want)


@dataclass(frozen=True)
class HardeningRecorded(HardeningRemembered):
    """kubeadm-config is given the flags and mounts of hardening, once every control plane runs with them."""

    impact: ClassVar[Impact] = Impact.SERVICE

    async def apply(self, on: Kube) -> None:
        """Set our flags and mounts in its text, keep every other byte; without what is taken out it is written anew."""
        found, config = await find_record(on)
        changes = self.changes(config)
        text = with_values(found["data"][KEY], _keeping(config, changes))
        if self.changes(read_yaml(text)):
            made = _keeping(config, changes)
            text = write_yaml({**config, **{name: {**(config.get(name) or {}), **made[name]} for name in made}})
        meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await on.patch("v1", "ConfigMap", RECORD, {"metadata": meta, "data": {KEY: text}}, SYSTEM)
        on.forget()


def _keeping(config: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sections as they are to be, with empty lists in the place of what is taken out of them."""
    made = {}
    for name, section in changes.items():
        old = config.get(name) or {}
        empty = {key: type(old[key])() for key in ("extraArgs", "extraVolumes") if old.get(key) and key not in section}
        made[name] = {**section, **empty}
    return made


def _section(part: str, section: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Return extraArgs and extraVolumes as they are to be, in the form that the record has: a list from v1beta4 on."""
    given = section.get("extraArgs") or {}
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    pairs = (
        [(str(one["name"]), str(one["value"])) for one in given] if listed else [(k, str(v)) for k, v in given.items()]
    )
    ours = {name for name, value in pairs if hardening.owned(part, name, value)}
    if hardening.AUDIT_FLAGS[0] in ours:
        ours |= set(hardening.AUDIT_FLAGS)
    left = dict(wanted.flags)
    kept = [(name, left.pop(name, value)) for name, value in pairs if name in wanted.flags or name not in ours]
    args = [*kept, *left.items()]
    names = {mount.name for mount in MOUNTS}
    there = section.get("extraVolumes") or []
    volumes = [one for one in there if one.get("name") not in names or part != hardening.APISERVER]
    own = [mount.of_kubeadm() for mount in wanted.mounts]
    volumes = (
        [*there] if all(one in there for one in own) and len(there) == len(volumes) + len(own) else [*volumes, *own]
    )
    made: dict[str, Any] = {}
    if args:
        made["extraArgs"] = [{"name": name, "value": value} for name, value in args] if listed else dict(args)
    return {**made, "extraVolumes": volumes} if volumes else made


@dataclass(frozen=True)
class HardeningDeclared:
    """The control plane of a running cluster has what hardening declares: a bootstrap brings it to new ones alone."""

    cluster: Cluster = field(hash=False)
    name: str = "the control plane was given what hardening declares"

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifests. Raises Permanent SHW-811, and Refused as `new_manifest`."""
        texts = await on.read_all([FileText(f"{MANIFESTS}/{part}.yaml") for part in PARTS])
        wrong = [
            part
            for part, text in zip(PARTS, texts, strict=True)
            if text is not None and new_manifest(part, text, wanted_of(self.cluster, part), on.name) != text
        ]
        if wrong:
            message = f"{', '.join(wrong)} of this running cluster lack what `hardening` declares"
            fix = "Run `shipway harden FILE`: it brings it to one control plane after the other, and proves it."
            raise Permanent(message, host=on.name, code="SHW-811", fix=fix)
        return None
