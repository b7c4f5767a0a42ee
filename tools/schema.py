"""The JSON Schema of cluster files, for editors; `python -m tools.schema --write` brings schema/ up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shipway.cluster.model import Cluster
from shipway.cluster.profiles import profile_names

FILE = Path(__file__).parent.parent / "schema" / "cluster.schema.json"
# A profile fills the other sections, so only these must be whole in the file.
WHOLE = {"HostSpec", "Jump"}


def schema() -> dict[str, Any]:
    """Return the schema: of the model, less what a profile fills in, and with hosts as bare addresses too."""
    made = Cluster.model_json_schema()
    for name, part in made["$defs"].items():
        if name not in WHOLE:
            part.pop("required", None)
    made["required"] = ["name", "hosts"]
    made["properties"]["profile"]["enum"] = profile_names()
    for section in made["properties"].values():
        if "$ref" in section:  # a section may be left empty: all its lines commented out
            reference = section.pop("$ref")
            section["anyOf"] = [{"$ref": reference}, {"type": "null"}]
            # Pydantic leaves out a description that says the same as the section's own.
            section.setdefault("description", made["$defs"][reference.rsplit("/", 1)[-1]]["description"])
    hosts = made["properties"]["hosts"]
    bare = {"type": "string", "description": "Address of a host; its name is made from it."}
    hosts["items"] = {"anyOf": [bare, hosts["items"]]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "Shipway cluster file",
        "description": "What a Shipway cluster should be; docs/cluster-file.md explains every key.",
    }


def text() -> str:
    """Return the schema as the committed file holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file with --write, else print it; gives the exit code."""
    if arguments == ["--write"]:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
