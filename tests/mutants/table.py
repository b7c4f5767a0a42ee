"""Which modules are mutated, by which tests a mutant must be seen, and why a mutant that none sees is harmless."""

from __future__ import annotations

# A module's file, without its suffix -> the tests that its mutants are shown to: files `tests/test_NAME.py`.
TESTS: dict[str, tuple[str, ...]] = {
    "shipway/converge": ("converge", "changes"),
    "tasks/drift/permission": ("permissions", "drift_parts"),
    "tasks/table": ("permissions", "stage_work"),
    "tasks/workloads": ("permissions", "drift_parts"),
    "tasks/locking": ("run_locks",),
    "shipway/cluster/window": ("repair_nouns",),
    "shipway/steps/kubernetes/init": ("steps_pure", "init_and_join", "permissions"),
    "shipway/steps/kubernetes/join": ("init_and_join", "permissions"),
    "shipway/steps/kubernetes/reset": ("init_and_join",),
    "shipway/ownership/contradictions": ("contradictions",),
    "shipway/ownership/evidence": ("ownership", "steps_pure"),
    "shipway/kube/drain": ("drain",),
    "shipway/host/ssh/channels": ("ssh_sessions",),
    "shipway/host/ssh/connection": ("ssh_sessions",),
    "shipway/host/ssh/handshake": ("ssh_handshake", "security_host_keys"),
    "shipway/host/ssh/keys": ("ssh_keys",),
    "shipway/host/ssh/known_hosts": ("security_host_keys",),
    "shipway/host/ssh/pool": ("ssh_pool",),
    "shipway/host/ssh/sudo": ("secret_places",),
    "shipway/redact": ("redact", "properties"),
    "shipway/cluster/secrets": ("secret_places", "registries"),
    "tasks/secret_blocks": ("blocks",),
    "shipway/rules/solver": ("solver", "cluster_broken"),
    "shipway/rules/networks": ("solver", "cluster_broken"),
    "shipway/rules/versions": ("solver", "profiles", "cluster_broken"),
    "shipway/rules/files": ("solver", "registries"),
    "shipway/os/debian/package_changes": ("package_changes",),
    "shipway/os/debian/packages": ("package_changes", "steps_pure", "permissions"),
    "shipway/steps/kubernetes/skew": ("skew",),
    "shipway/os/debian/apt": ("apt_sources", "security_downloads", "permissions", "package_changes"),
    "shipway/os/signing_key": ("security_downloads", "steps_pure"),
    "shipway/os/debian/apt_sources": ("apt_sources",),
    "shipway/edits/lines": ("edits", "shared_files"),
    "shipway/edits/kubeconfig": ("kubeconfig_merge",),
}

# A module's file: a mutant's name -> why nothing is lost with it.
HARMLESS: dict[str, dict[str, str]] = {
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
    "shipway/steps/kubernetes/join": {
        "NodeJoined._ours: without `seen.joined`: seen.joined and seen.node and seen.node != self.host.name": (
            "a node's name is only read from its certificate, and a host that has one has joined"
        ),
        "NodeJoined._lost: without `seen.node`: seen.node or self.host.name": (
            "a joined host of another name was refused before this, so both names are the same"
        ),
    },
}
