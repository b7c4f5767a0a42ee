"""Any host, any file: every step looks and works on what hypothesis draws and ends as one of our errors at worst."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
import tomllib
from collections import Counter
from typing import Any

import pytest
import tomli_w
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import shipway.facts
from shipway.cluster_file import parse_cluster
from shipway.edits.containerd import UnreadableError, Wanted, differences, edit_config
from shipway.edits.containerd import settings as wanted_settings
from shipway.edits.toml import NotEditableError
from shipway.errors import Refused, ShipwayError
from shipway.facts.fact import Fact
from shipway.foreign.numbers import whole
from shipway.foreign.yaml import read_yaml
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.kube.manifests import parse
from shipway.rules.solver import warnings_of
from shipway.script import Output
from tests.core.test_properties import FACTS
from tests.places.fuzz_host import OUTPUTS, TABLES, TEXTS, TREES, everything_on, hurried, plain
from tests.security.hostile import KEY, OTHER, WHOLE, places, with_value

# Without shrinking, which takes minutes here: the long run (tests/faults/test_fuzz.py) shrinks what is found.
QUICK = settings(
    max_examples=40,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
PLACES = [(data, where) for data in (WHOLE, OTHER) for where, _ in places(data)]


def test_no_kind_of_fact_is_left_out() -> None:
    for module in pkgutil.iter_modules(shipway.facts.__path__):
        importlib.import_module(f"shipway.facts.{module.name}")
    assert {type(fact) for fact in FACTS} == {
        kind for kind in Fact.__subclasses__() if kind.__module__.startswith("shipway")
    }


@given(st.lists(OUTPUTS, min_size=1, max_size=5), st.booleans())
@example(outputs=[Output(0, "x: 2001-13-45", "")], cut=False)
@example(outputs=[Output(0, "version = 2\nplugins = 5", "")], cut=False)
@example(outputs=[Output(0, "\u00e9", "")], cut=False)
@example(outputs=[Output(0, "MemTotal: k", "")], cut=False)
@example(outputs=[Output(0, "MemTotal:", "")], cut=False)
@example(outputs=[Output(0, "\u00b2", "")], cut=False)
@example(outputs=[Output(0, "9" * 5000, "")], cut=False)
@QUICK
def test_a_step_on_a_host_that_answers_anything_ends_as_one_of_our_errors_at_worst(
    outputs: list[Output],
    cut: bool,  # noqa: FBT001 - drawn
) -> None:
    with hurried():
        ends = asyncio.run(everything_on(outputs, cut=cut))
    assert ends["commands"] > 50


@given(TABLES, st.sampled_from([2, 3, 4]), st.booleans())
@QUICK
def test_containerds_configuration_keeps_every_foreign_key_and_made_twice_is_made_once(
    data: dict[str, Any],
    version: int,
    nvidia: bool,  # noqa: FBT001 - drawn
) -> None:
    wanted = Wanted("registry.example/pause:3.9", NVIDIA.runtime if nvidia else None, nvidia)
    default = tomli_w.dumps({**plain(data), "version": version})
    with contextlib.suppress(UnreadableError):
        differences(default, wanted)
    try:
        once = edit_config(default, default, wanted)
    except (UnreadableError, NotEditableError):
        return
    assert edit_config(once, default, wanted) == once
    assert differences(once, wanted) == []
    read = tomllib.loads(default)
    ours = set(wanted_settings(read, wanted)) | {("disabled_plugins",)}
    assert set(_leaves(read)) - ours <= set(_leaves(tomllib.loads(once))) | {
        path for path in _leaves(read) if any(path[: len(one)] == one for one in ours)
    }


def _leaves(part: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(part, dict) and part:
        return [path for key, inner in part.items() for path in _leaves(inner, (*at, key))]
    return [] if isinstance(part, dict) else [at]


@given(TEXTS)
@QUICK
def test_foreign_yaml_is_data_or_a_value_error_and_a_manifest_objects_or_a_refusal(text: str) -> None:
    with contextlib.suppress(ValueError):
        read_yaml(text)
    with contextlib.suppress(Refused):
        assert parse(text, where="x.yaml")


@given(st.sampled_from(PLACES), TREES | TEXTS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_a_cluster_file_with_anything_anywhere_is_read_and_solved_or_refused(place: Any, value: Any) -> None:
    data, where = place
    value = str(value) if where[-1] == KEY else value
    try:
        cluster = parse_cluster(yaml.safe_dump(with_value(data, where, value)))
    except Refused:
        return
    assert all(isinstance(warning, str) for warning in warnings_of(cluster))


VERSIONS = st.builds(
    lambda major, minor, patch: f"{major}.{minor}.{patch}", *([st.integers(0, 3) | st.integers(0, 99)] * 3)
)
NETWORKS = st.builds(
    lambda numbers, size: f"{'.'.join(map(str, numbers))}/{size}",
    st.tuples(*([st.integers(0, 255)] * 4)),
    st.integers(0, 32),
)


@given(
    st.dictionaries(st.sampled_from(["kubernetes", "gpu", "runtime", "network", "plugin"]), VERSIONS),
    NETWORKS,
    NETWORKS,
)
@settings(max_examples=150)
def test_the_solver_judges_any_versions_and_networks(versions: dict[str, str], pods: str, services: str) -> None:
    minor = int(versions.get("kubernetes", "1.34.2").split(".")[1]) % 40
    kubernetes = {"version": f"1.{minor}.3", "pod_network": pods, "service_network": services}
    data = {
        **WHOLE,
        "kubernetes": {**WHOLE["kubernetes"], **kubernetes},
        "gpu": {**WHOLE["gpu"], "toolkit": versions.get("gpu", "1.18.1")},
        "runtime": {**WHOLE["runtime"], "version": versions.get("runtime", "2.1")},
        "network": {**WHOLE["network"], "version": versions.get("network", "3.31.2")},
        "device_plugin": {"version": versions.get("plugin", "0.18.0"), "image": "r/x"},
    }
    try:
        cluster = parse_cluster(yaml.safe_dump(data))
    except Refused:
        return
    assert all(isinstance(warning, str) for warning in warnings_of(cluster))


def test_a_number_is_whole_or_none() -> None:
    heard = {" 12\n": 12, "0": 0, "\u00b2": None, "\u0663": None, "9" * 5000: None, "": None, "-1": None, "1 2": None}
    assert {text: whole(text) for text in heard} == heard


def test_the_fuzzed_host_does_reach_steps() -> None:
    with hurried():
        ends: Counter[str] = asyncio.run(everything_on([Output(0, "", "")], cut=False))
    assert ends["done"] > 30
    assert issubclass(Refused, ShipwayError)
    with pytest.raises(ValueError, match="not YAML"):
        read_yaml("x: [")
    assert read_yaml("x: 2001-13-45") == {"x": "2001-13-45"}  # a date is text to Kubernetes
