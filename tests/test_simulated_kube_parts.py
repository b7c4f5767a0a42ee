"""The small parts of the simulated API, each by a table of what goes in and what comes out."""

from __future__ import annotations

import pytest

from lab.simulated.kube.ages import human
from lab.simulated.kube.container_shell import Program, run_script, run_words
from lab.simulated.kube.container_tools import Machine
from lab.simulated.kube.fieldsets import from_fields_v1, leaves, to_fields_v1
from lab.simulated.kube.list_keys import Shape
from lab.simulated.kube.patches import merge_patch, strategic_merge
from lab.simulated.kube.quantities import amount, canonical
from lab.simulated.kube.selectors import label_match

CARDS = ["GPU-a", "GPU-b"]


def machine() -> Machine:
    return Machine({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, "pod-1", nvidia=True, cards=list(CARDS))


def texts(program: Program) -> list[str]:
    return [line for _, line in program.lines]


@pytest.mark.parametrize(
    ("script", "lines", "ends", "code"),
    [
        ("echo one; echo two", ["one", "two"], 0.0, 0),
        ("echo \"$NVIDIA_VISIBLE_DEVICES\"; echo '$X'", ["GPU-a,GPU-b", "$X"], 0.0, 0),
        ("false && echo no || echo yes", ["yes"], 0.0, 0),
        ("true || echo no && echo yes", ["yes"], 0.0, 0),
        ("false; echo $?", ["1"], 0.0, 0),
        ("sleep 2; exit 3", [], 2.0, 3),
        ("set -e; false; echo never", [], 0.0, 1),
        ("nvidia-smi -L | wc -l", ["2"], 0.1, 0),
        ("nvidia-smi --query-gpu=index,uuid --format=csv,noheader", ["0, GPU-a", "1, GPU-b"], 0.1, 0),
        ("for i in 1 2; do echo n$i; done", ["n1", "n2"], 0.0, 0),
        ("if [ 1 -gt 2 ]; then echo a; elif true; then echo b; else echo c; fi", ["b"], 0.0, 0),
        ("while true; do echo x; sleep infinity; done", ["x"], None, 0),
        ("echo start; sleep infinity; echo never", ["start"], None, 0),
        ("nosuch --flag; echo on", ["sh: 1: nosuch: not found", "on"], 0.0, 0),
        ("N=3; test $N = 3 && echo equal 2>&1", ["equal"], 0.0, 0),
        ("X=$(date)", ["SIMULATED shell: command substitution is not simulated"], 0.0, 2),
    ],
)
def test_a_script_writes_what_a_shell_would(script: str, lines: list[str], ends: float | None, code: int) -> None:
    program = run_script(script, machine())
    assert texts(program) == lines
    assert program.ends == ends
    assert program.code == code


def test_lines_come_when_their_time_has_come() -> None:
    assert run_script("echo a; sleep 5; echo b", machine()).lines == [(0.0, "a"), (5.0, "b")]


def test_an_unknown_program_is_not_guessed_at() -> None:
    assert run_words(["/coredns", "-conf", "x"], machine()) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (182, "3m2s"), (1560, "26m"), (14520, "4h2m"), (100_000, "27h")],
)
def test_ages_read_as_kubectl_prints_them(seconds: int, text: str) -> None:
    assert human(seconds) == text


@pytest.mark.parametrize(("given", "stored"), [(1, "1"), ("0.1", "100m"), ("1000m", "1"), ("1Gi", "1Gi"), ("2", "2")])
def test_quantities_have_one_form(given: str | int, stored: str) -> None:
    assert canonical(given) == stored
    assert amount(given) == amount(stored)


def test_fields_survive_the_way_to_managed_fields_and_back() -> None:
    containers = [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]
    obj = {"metadata": {"name": "x", "labels": {"a": "b"}, "finalizers": ["f"]}, "spec": {"containers": containers}}
    paths = set(leaves(obj, Shape(custom=False)))
    assert ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image") in paths
    assert from_fields_v1(to_fields_v1(paths)) == paths


def test_patches_keep_what_they_do_not_name() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}, "l": [1]}, {"a": {"b": None}, "l": [2]}) == {"a": {"c": 2}, "l": [2]}
    old = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}
    patch = {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "$patch": "delete"}]}}
    assert strategic_merge(old, patch, Shape(custom=False)) == {"spec": {"containers": [{"name": "b", "image": "2"}]}}


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [("a=1", True), ("a!=1", False), ("a", True), ("!a", False), ("b notin (x,y),a in (1,2)", True), ("a==2", False)],
)
def test_label_selectors_select(selector: str, wanted: bool) -> None:  # noqa: FBT001 - a table's column
    match = label_match(selector)
    assert match is not None
    assert match({"metadata": {"labels": {"a": "1"}}}) is wanted
