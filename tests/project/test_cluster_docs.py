"""Schema, examples and the pages made from the source are what the source says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from shipway.cluster.fields import entries
from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.known_failures.catalogue import KNOWN, VAGUE
from tools import reference, schema
from tools.reference_codes import CODE, find_raised
from tools.traps import BUILT_IN, HOST_TRAPS, ROOT, TITLES, answers, sources

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def test_the_committed_schema_is_true() -> None:
    assert schema.FILE.read_text() == schema.text(), "run python -m tools.schema --write"


def test_the_schema_asks_only_for_name_and_hosts() -> None:
    assert schema.schema()["required"] == ["name", "hosts"]


def test_every_property_of_the_schema_is_described() -> None:
    def properties(part: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, value in part.get("properties", {}).items():
            yield f"{where}.{name}", value

    made = schema.schema()
    found = [*properties(made, "file")]
    for name, part in made["$defs"].items():
        found += properties(part, name)
    assert len(found) > 60
    assert [name for name, value in found if not value.get("description")] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_cluster_file(path: Path) -> None:
    cluster = load_cluster(path)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema.schema())
    assert cluster.hosts


def test_the_schema_refuses_what_the_model_refuses() -> None:
    for text in ("name: demo\n", "name: demo\nhosts: [10.0.0.1]\nuser: ops\n", "name: demo\nhosts: [5]\n"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(text), schema.schema())


def test_the_commented_example_shows_every_section() -> None:
    text = (ROOT / "examples" / "cluster.yaml").read_text()
    for name in Cluster.model_fields:
        assert f"\n{name}:" in text, name


def test_the_pages_made_from_the_source_are_up_to_date() -> None:
    stale = [path.name for path, text in reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run python -m tools.reference --write"


def test_every_key_is_described() -> None:
    text = (ROOT / "docs" / "cluster-file.md").read_text()
    for entry in entries(Cluster):
        assert entry.description, entry.path
        assert f"| `{entry.path}` |" in text, entry.path


def test_every_code_in_the_source_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    codes = {code for path in sources() for code in CODE.findall(path.read_text())}
    assert len(codes) > 60
    assert sorted(code for code in codes if f"| {code} |" not in page) == []


def test_codes_are_given_once() -> None:
    known = [entry.code for entry in KNOWN]
    assert len(known) == len(set(known))
    assert not set(known) & {row.code for row in find_raised()}
    assert {entry.code for entry in VAGUE} == {"SHW-400"}


def test_every_trap_is_answered_somewhere() -> None:
    found = answers()
    assert sorted(found) == sorted(TITLES)
    assert [trap for trap in range(1, HOST_TRAPS + 1) if not found[trap]] == []


def test_what_is_built_in_is_there() -> None:
    assert [file for file in BUILT_IN.values() if not (ROOT / file).exists()] == []


def test_the_schema_is_plain_json() -> None:
    assert json.loads(schema.text())["title"] == "Shipway cluster file"
