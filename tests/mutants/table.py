"""Which modules are mutated, by which tests a mutant must be seen, and why a mutant that none sees is harmless."""

from __future__ import annotations

# A module's file, without its suffix -> the tests that its mutants are shown to: files `tests/test_NAME.py`.
TESTS: dict[str, tuple[str, ...]] = {
    "shipway/converge": ("converge", "changes"),
    "tasks/drift_permission": ("permissions", "drift_parts"),
    "tasks/stages": ("permissions", "workloads"),
    "tasks/workloads": ("permissions", "drift_parts", "workloads"),
    "shipway/window": ("repair_nouns",),
    "shipway/steps/init": ("steps_pure", "ownership", "evidence"),
    "shipway/steps/join": ("ownership", "join_tokens"),
    "shipway/steps/reset": ("ownership", "host_traps"),
    "shipway/ownership/contradictions": ("contradictions",),
    "shipway/ownership/evidence": ("ownership", "steps_pure"),
    "shipway/drain": ("drain", "flow_parts"),
    "shipway/ssh/channels": ("ssh_channels", "ssh_refusals", "ssh"),
    "shipway/ssh/connection": ("ssh_refusals", "ssh", "ssh_channels", "jump", "ssh_noise"),
    "shipway/ssh/handshake": ("ssh_refusals", "ssh", "security_host_keys", "jump", "ssh_config"),
    "shipway/ssh/keys": ("ssh_config", "ssh_refusals"),
    "shipway/ssh/known_hosts": ("security_host_keys", "ssh", "ssh_config"),
    "shipway/ssh/pool": ("jump", "ssh"),
    "shipway/ssh/sudo": ("secret_places",),
    "shipway/redact": ("redact", "properties"),
    "shipway/secret_place": ("secret_places", "registries"),
    "tasks/secret_blocks": ("secret_blocks",),
    "shipway/solver": ("solver",),
    "shipway/solver_networks": ("solver", "properties"),
    "shipway/solver_versions": ("solver", "profiles"),
    "shipway/solver_files": ("solver", "registries"),
    "shipway/steps/package_changes": ("package_changes",),
    "shipway/steps/packages": ("package_changes", "steps_pure", "minimal_host", "skew"),
    "shipway/steps/skew": ("skew",),
    "shipway/steps/apt": ("sources", "steps_pure", "package_changes", "security_downloads"),
    "shipway/signing_key": ("security_downloads", "sources"),
    "shipway/apt_sources": ("apt_sources",),
    "shipway/edits": ("edits", "shared_files", "properties"),
    "shipway/kubeconfig_merge": ("kubeconfig_merge",),
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
    },
    "shipway/secret_place": {
        "trouble: without `error.strerror`: isinstance(error, OSError) and error.strerror": (
            "only the words of the reason, for an OSError without any"
        ),
        "user_and_password: without `not colon`: not colon or not user or not password": (
            "without a colon there is no password either"
        ),
    },
}
