"""Which modules are mutated, by which tests a mutant must be seen, and why a mutant that none sees is harmless."""

from __future__ import annotations

# A module's file, without its suffix -> the tests that its mutants are shown to: ROOM/NAME is tests/ROOM/test_NAME.py.
TESTS: dict[str, tuple[str, ...]] = {
    "shipway/converge": ("core/converge", "host/changes"),
    "tasks/drift/permission": ("drift/permissions", "drift/parts", "drift/gpu_jobs", "gpu/driver_stage"),
    "tasks/table": (
        "drift/permissions",
        "flows/stage_work",
        "flows/name_taken",
        "flows/rotate_ca",
        "kubernetes/api_vip",
    ),
    "tasks/workloads": ("drift/permissions", "drift/parts"),
    "tasks/locking": ("locks/run_locks", "retire/flows", "retire/whole", "gpu/driver_stage"),
    "shipway/cluster/window": ("drift/repair_nouns",),
    "shipway/steps/kubernetes/init": ("host/steps_pure", "kubernetes/init_and_join", "drift/permissions"),
    "shipway/steps/kubernetes/join/worker": ("kubernetes/init_and_join", "drift/permissions"),
    "shipway/steps/kubernetes/reset": ("kubernetes/init_and_join",),
    "shipway/ownership/contradictions": ("cluster/contradictions", "ownership/leading"),
    "shipway/ownership/evidence": ("ownership/ownership", "host/steps_pure"),
    "shipway/kube/drain": ("kubernetes/drain",),
    "shipway/host/ssh/channels": ("ssh/sessions",),
    "shipway/host/ssh/connection": ("ssh/sessions",),
    "shipway/host/ssh/handshake": ("ssh/handshake", "security/host_keys"),
    "shipway/host/ssh/keys": ("ssh/keys",),
    "shipway/host/ssh/known_hosts": ("security/host_keys",),
    "shipway/host/ssh/pool": ("ssh/pool",),
    "shipway/host/ssh/sudo": ("security/secret_places",),
    "shipway/redact": ("core/redact", "core/properties"),
    "shipway/cluster/secrets": ("security/secret_places", "site/registries"),
    "tasks/secret_blocks": ("cluster/blocks",),
    "shipway/rules/solver": ("cluster/solver", "cluster/broken"),
    "shipway/rules/networks": ("cluster/solver", "cluster/broken", "kubernetes/api_vip"),
    "shipway/rules/versions": ("cluster/solver", "cluster/profiles", "cluster/broken"),
    "shipway/rules/files": ("cluster/solver", "site/registries", "hardening/declared"),
    "shipway/os/debian/package_changes": ("os/package_changes",),
    "shipway/os/debian/packages": ("os/package_changes", "host/steps_pure", "drift/permissions"),
    "shipway/steps/kubernetes/skew": ("kubernetes/skew", "upgrade/steps"),
    "shipway/os/debian/apt": ("os/apt_sources", "security/downloads", "drift/permissions", "os/package_changes"),
    "shipway/os/signing_key": ("security/downloads", "host/steps_pure"),
    "shipway/os/debian/apt_sources": ("os/apt_sources", "retire/edits"),
    "shipway/edits/lines": ("host/edits", "host/shared_files", "retire/edits"),
    "shipway/edits/kubeconfig": ("kubernetes/kubeconfig_merge", "retire/edits"),
    "shipway/etcd/quorum": ("etcd/quorum",),
    "shipway/steps/authority/etcd": ("kubernetes/other_authorities",),
    "shipway/steps/authority/front_proxy": ("kubernetes/other_authorities",),
    "shipway/steps/authority/left": ("kubernetes/other_authorities",),
    "shipway/steps/authority/possible": ("kubernetes/authority", "kubernetes/other_authorities", "kubernetes/tokens"),
    "shipway/steps/authority/token_secrets": ("kubernetes/tokens",),
    "shipway/steps/authority/tokens": ("kubernetes/tokens",),
    "shipway/steps/maintain/restart": ("maintain/restart",),
    "tasks/retire/whole": ("retire/whole",),
    "tasks/replace/allowed": ("replace/allowed",),
    "tasks/replace/sides": ("replace/allowed",),
    "flows/replace": ("replace/flows",),
    "shipway/gpu/jobs": ("upgrade/steps", "upgrade/services", "upgrade/paths", "retire/may_go"),
    "shipway/kube/webhooks": ("retire/webhooks",),
    "shipway/steps/endpoint/balancer": ("kubernetes/move_to_balancer",),
    "shipway/steps/endpoint/old_way": ("kubernetes/move_to_balancer",),
}


def shown_to(file: str) -> list[str]:
    """Return the files of the tests that a module's mutants are shown to."""
    return [f"tests/{name.replace('/', '/test_')}.py" for name in TESTS[file]]


# A module's file: a mutant's name -> why nothing is lost with it.
HARMLESS: dict[str, dict[str, str]] = {
    "shipway/steps/kubernetes/skew": {
        "next_of: bound moved: triple(have) > triple(wanted)": "it is only asked where the two versions differ",
    },
    "shipway/steps/authority/token_secrets": {
        "Waiting.over: bound moved: datetime.now(UTC) >= self.until": "ten minutes are spared besides",
    },
    "tasks/retire/whole": {
        "_ends: filter dropped: asked_devices(one, claims)": (
            "a node without such pods has no holders: only requests are saved"
        ),
    },
    "tasks/table": {
        "_vip_held: bound moved: time.monotonic() < ends": (
            "one look more, in the very nanosecond of the deadline; no promise is about it"
        ),
    },
    "shipway/etcd/quorum": {
        "why_not_leave: without `left % 2 == 0`: left % 2 == 0 and sound == least(left)": (
            "an odd number that is left has one healthy member more than it needs, or the rows before this one refuse"
        ),
    },
    "shipway/converge": {
        "_results: without `isinstance(seen, Drift)`: at in errors and isinstance(seen, Drift) and can_change(one)": (
            "only what drifted is in `errors`; the clause tells the type to mypy"
        ),
        "_results: without `can_change(one)`: at in errors and isinstance(seen, Drift) and can_change(one)": (
            "only what can be applied is in `errors`; the clause tells the type to mypy"
        ),
        "wait_until: bound moved: (left := started + seconds - time.monotonic()) > 0": (
            "one look more, in the very nanosecond of the deadline; no promise is about it"
        ),
    },
    "shipway/kube/drain": {
        "drain: bound moved: time.monotonic() > ends": (
            "a deadline is never met to the nanosecond; a drain that ends with its last look is none that missed it"
        ),
    },
    "shipway/host/ssh/channels": {
        "ChannelRefused.__init__: call dropped: super().__init__(reason)": (
            "BaseException.__new__ keeps the reason as well"
        ),
        "Channels.run: only `AT_ONCE`: min(AT_ONCE, self._limit + 1)": (
            "how soon the queue grows again: what sshd refuses meanwhile waits for its turn, which it did before"
        ),
        "Channels.run: only `self._open - 1`: min(others, self._open - 1)": (
            "who began later is refused as well, and the last of them, alone, pauses"
        ),
    },
    "shipway/host/ssh/connection": {
        "Connection._open: without `self._channels is None`: "
        "self._connection is None or self._channels is None or self._connection.is_closed()": (
            "channels are made with their connection; the clause tells the type to mypy"
        ),
    },
    "shipway/ownership/contradictions": {
        "_owners: without `first`: running and first": "`running` is only true of a host; the clause is for mypy",
    },
    "shipway/steps/kubernetes/join/worker": {
        "NodeJoined._ours: without `seen.joined`: seen.joined and seen.node and seen.node != self.host.name": (
            "a node's name is only read from its certificate, and a host that has one has joined"
        ),
        "NodeJoined._lost: without `seen.node`: seen.node or self.host.name": (
            "a joined host of another name was refused before this, so both names are the same"
        ),
    },
}
