"""The pages as a site: links lead where they led, the picture is of today's imports, no page is forgotten."""

from __future__ import annotations

import pytest
import yaml

from tools.architecture import PICTURE, arrows, draw, layers
from tools.docs_site import moved
from tools.traps import ROOT


@pytest.mark.parametrize(
    ("source", "link", "there"),
    [
        ("README.md", "[a](docs/ssh.md)", "[a](ssh.md)"),
        ("README.md", "![a](docs/img/b.png)", "![a](img/b.png)"),
        ("README.md", "[all](docs/decisions)", "[all](decisions/README.md)"),
        ("README.md", "[how](CONTRIBUTING.md)", "[how](contributing.md)"),
        ("README.md", "[examples/a.yaml](examples/a.yaml)", "`examples/a.yaml`"),
        ("docs/performance.md", "[reads](../shipway/kube/reads.py)", "reads (`shipway/kube/reads.py`)"),
        ("docs/stages/hosts.md", "[a](device-plugin.md#why)", "[a](device-plugin.md#why)"),
        ("docs/stages/hosts.md", "[a](../../README.md)", "[a](../index.md)"),
        ("docs/ssh.md", "[a](#b) and [c](https://example.com/d.md)", "[a](#b) and [c](https://example.com/d.md)"),
    ],
)
def test_a_link_leads_to_the_same_page_in_the_site(source: str, link: str, there: str) -> None:
    assert moved(f"x {link} y", source) == f"x {there} y"


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    made = {"index.md", "contributing.md", "changelog.md", "architecture.md"}
    listed = set(_pages(nav))
    decisions = {page for page in pages if page.startswith("decisions/0")}  # the hook adds these
    assert listed == (pages | made) - decisions


def _pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return [page for part in parts for page in _pages(part)]


def test_the_picture_of_the_architecture_is_of_todays_imports() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "`make docs` draws it again"


def test_every_line_of_the_picture_leads_down() -> None:
    order = {room: number for number, row in enumerate(layers()) for room in row}
    drawn = arrows(list(order))
    assert len(drawn) > len(order) / 2
    assert all(order[room] < order[other] for room, other in drawn)
