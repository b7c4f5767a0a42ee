"""The small parts of the simulated API, each by a table of what goes in and what comes out."""

from __future__ import annotations

import pytest

from lab.simulated.kube.fieldsets import from_fields_v1, leaves, to_fields_v1
from lab.simulated.kube.list_keys import Shape
from lab.simulated.kube.patches import merge_patch
from lab.simulated.kube.pod_programs import Machine, run_script, run_words
from lab.simulated.kube.quantities import amount, canonical
from lab.simulated.kube.selectors import label_match
from lab.simulated.kube.tables import human

GPUS = ["GPU-a", "GPU-b"]


def machine() -> Machine:
    return Machine({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, "pod-1", nvidia=True, gpus=list(GPUS))


@pytest.mark.parametrize(
    ("script", "lines", "ends", "code"),
    [
        (
            'echo "devices=$NVIDIA_VISIBLE_DEVICES"; echo /dev/nvidia*',
            [(0.0, "devices=GPU-a,GPU-b"), (0.0, "/dev/nvidia0 /dev/nvidia1")],
            0.0,
            0,
        ),
        (
            "nvidia-smi -L; echo on",
            [(0.0, "GPU 0: NVIDIA A10 (UUID: GPU-a)"), (0.0, "GPU 1: NVIDIA A10 (UUID: GPU-b)"), (0.1, "on")],
            0.1,
            0,
        ),
        ("echo a; sleep 5; echo b; exit 3", [(0.0, "a"), (5.0, "b")], 5.0, 3),
        ("echo start; sleep infinity", [(0.0, "start")], None, 0),
    ],
)
def test_a_script_writes_what_a_shell_would(
    script: str, lines: list[tuple[float, str]], ends: float | None, code: int
) -> None:
    program = run_script(script, machine())
    assert (program.lines, program.ends, program.code) == (lines, ends, code)


@pytest.mark.parametrize(
    "script", ["nvidia-smi -L | wc -l", "X=$(date)", "nosuch --flag", "for i in 1 2; do echo $i; done"]
)
def test_what_is_not_simulated_is_refused_aloud(script: str) -> None:
    program = run_script(f"echo one; {script}", machine())
    said = [line for _, line in program.lines]
    assert said[0] == "one"
    assert said[1].startswith("SIMULATED pod: `")
    assert program.code == 2


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


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [("a=1", True), ("a!=1", False), ("a", True), ("!a", False), ("b notin (x,y),a in (1,2)", True), ("a==2", False)],
)
def test_label_selectors_select(selector: str, wanted: bool) -> None:  # noqa: FBT001 - a table's column
    match = label_match(selector)
    assert match is not None
    assert match({"metadata": {"labels": {"a": "1"}}}) is wanted
