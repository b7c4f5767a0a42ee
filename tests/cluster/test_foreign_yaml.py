"""YAML is read as Kubernetes' own loader reads it (sigs.k8s.io/yaml), and written so that it is read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.foreign.yaml import read_yaml, write_yaml
from shipway.kube.manifests import parse

ROOT = Path(__file__).parents[2]
# What stands unquoted, and what go-yaml v2's resolve.go and YAMLToJSON make of it.
SCALARS: tuple[tuple[str, Any], ...] = (
    ("=", "="),
    ("22:22", "22:22"),
    ("12:30:45", "12:30:45"),
    ("190:20:30.15", "190:20:30.15"),
    ("2024-01-02", "2024-01-02"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("2026-13-45", "2026-13-45"),
    ("1e3", 1000),
    ("1E3", 1000),
    ("1e-3", 0.001),
    ("1.5e3", 1500),
    ("12e03", 12000),
    ("1.0", 1),
    ("1.", 1),
    (".5", 0.5),
    ("-.5", -0.5),
    ("1.25", 1.25),
    ("0o17", 15),
    ("017", 15),
    ("0644", 420),
    ("08", 8),
    ("-017", -15),
    ("0x1F", 31),
    ("0b101", 5),
    ("+12", 12),
    ("1_000", 1000),
    ("0", 0),
    ("00", 0),
    ("18446744073709551615", 18446744073709551615),
    ("18446744073709551616", 18446744073709551616),
    ("1e400", "1e400"),
    ("1.2.3", "1.2.3"),
    ("1.31.7", "1.31.7"),
    ("10.244.0.0/16", "10.244.0.0/16"),
    ("0x", "0x"),
    ("1e", "1e"),
    ("-", [None]),
    ("+", "+"),
    (".", "."),
    ("5m", "5m"),
    ("y", True),
    ("Yes", True),
    ("on", True),
    ("TRUE", True),
    ("n", False),
    ("off", False),
    ("No", False),
    ("yEs", "yEs"),
    ("nope", "nope"),
    ("null", None),
    ("~", None),
    ("", None),
    ("Null", None),
    ("nULL", "nULL"),
    ("'1e3'", "1e3"),
    ('"on"', "on"),
    ("!!str 017", "017"),
    ("!!float 1", 1),
    ("!!int 0o17", 15),
)


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_an_unquoted_scalar_is_what_kubernetes_takes_it_for(text: str, value: Any) -> None:
    read = read_yaml(f"a: {text}\n" if text != "-" else "a:\n-\n")["a"]
    assert read == value
    assert type(read) is type(value) or (isinstance(read, int | float) and not isinstance(read, bool))


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "!!int x", "!!bool 1", "!!python/object:a.b {}"])
def test_what_no_json_holds_is_an_error_and_not_another_value(text: str) -> None:
    with pytest.raises(ValueError, match="not YAML"):
        read_yaml(f"a: {text}\n")


@pytest.mark.parametrize(
    ("key", "name"),
    [("1", "1"), ("on", "true"), ("n", "false"), ("1e3", "1000"), ("2024-01-02", "2024-01-02"), ("=", "=")],
)
def test_a_key_is_text_as_in_json(key: str, name: str) -> None:
    assert read_yaml(f"{key}: x\n") == {name: "x"}


@pytest.mark.parametrize("key", ["~", "[a]", "{a: b}"])
def test_a_key_that_cannot_be_text_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="not YAML"):
        read_yaml(f"? {key}\n: x\n")


def test_merged_keys_are_taken_in_as_ever() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y1: 2}\n")["b"] == {"x": 1, "y1": 2}


def test_a_definition_with_an_unquoted_equals_sign_is_read() -> None:
    """kube-prometheus 0.18: the matchers of an AlertmanagerConfig."""
    text = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\n"
        "spec:\n  enum:\n  - '!='\n  - =\n  - =~\n  time: 22:22\n  since: 2024-01-02\n  limit: 1e3\n"
    )
    assert parse(text, where="x")[0]["spec"] == {
        "enum": ["!=", "=", "=~"],
        "time": "22:22",
        "since": "2024-01-02",
        "limit": 1000,
    }


@given(
    st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=12), st.integers(-(2**63), 2**63), st.booleans()))
)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    assert read_yaml(write_yaml(data)) == data


@pytest.mark.parametrize(
    "text", ["1e3", "0o17", "y", "on", "22:22", "017", "2024-01-02", "=", "~", "", "1_0", "0x1", ".5"]
)
def test_a_text_stays_text_to_both_kinds_of_readers(text: str) -> None:
    written = write_yaml({"a": text})
    assert read_yaml(written) == yaml.safe_load(written) == {"a": text}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ssh: {port: 022}\n", "022 has a zero in front, octal to YAML: write 22, or 0o22"),
        ("ssh: {port: 22:22}\n", "ssh.port"),
        ("kubernetes: {init_seconds: 0600}\n", "0600 has a zero in front"),
        ("kubernetes: {kubelet: {x: 08}}\n", "08 has a zero in front"),
    ],
)
def test_a_cluster_files_number_is_never_silently_another(text: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_cluster(f"name: demo\nhosts: [10.0.0.1]\n{text}")
    assert why in refused.value.message


def test_a_cluster_file_may_say_octal_and_a_quoted_zero() -> None:
    kubelet = "kubernetes: {kubelet: {mode: 0o600, code: '0600', since: 2026-01-01, at: 22:22}}\n"
    made = parse_cluster(f"name: demo\nhosts: [10.0.0.1]\n{kubelet}").kubernetes.kubelet
    assert made == {"mode": 384, "code": "0600", "since": "2026-01-01", "at": "22:22"}


def test_the_product_reads_yaml_by_this_loader_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for folder in ("shipway", "tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "shipway" / "foreign" / "yaml.py"
        for found in re.finditer(r"yaml\.(safe_|full_|unsafe_)?(load|dump)(_all)?\(", path.read_text(encoding="utf-8"))
    ]
    assert wrong == []
