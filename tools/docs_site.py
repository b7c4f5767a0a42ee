"""Hooks of MkDocs: pages of the repository's root become pages of the site, and links to source files become text."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from tools.architecture import page
from tools.traps import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

# What lies beside docs/ and is read there: its place in the site.
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def moved(markdown: str, source: str) -> str:
    """Return a page's text with its links as they are in the site.

    `source` is the page's path in the repository, for example `docs/ssh.md`. A link to one of the pages of the root
    leads to its place in the site; one to anything outside docs/ becomes its text, for the site holds no source files.
    """
    here = posixpath.dirname(source)
    place = posixpath.dirname(ROOT_PAGES.get(source, posixpath.relpath(source, "docs")))

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(here, target))
        if path == "docs/decisions":
            path = "docs/decisions/README.md"
        inside = ROOT_PAGES.get(path) or (posixpath.relpath(path, "docs") if path.startswith("docs/") else "")
        if not inside:
            return text if text.startswith("`") else f"`{path}`" if text == path else f"{text} (`{path}`)"
        return f"{image}[{text}]({posixpath.relpath(inside, place or '.')}{anchor})"

    return _LINK.sub(link, markdown)


def title(markdown: str) -> str:
    """Return the heading of a page."""
    return markdown.split("\n", 1)[0].lstrip("# ").strip()


def on_config(config: Any) -> Any:
    """Add every decision to the navigation, in order (MkDocs calls this first)."""
    decisions = next(entry["Decisions"] for entry in config["nav"] if "Decisions" in entry)
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        decisions.append({title(path.read_text(encoding="utf-8")): f"decisions/{path.name}"})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/ (MkDocs calls this once it has found the others)."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - only `make docs-site` has MkDocs

    made: Mapping[str, str] = {
        **{to: (ROOT / name).read_text(encoding="utf-8") for name, to in ROOT_PAGES.items()},
        "architecture.md": page(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text with its links moved (MkDocs calls this for every page)."""
    place = page.file.src_uri
    source = next((name for name, to in ROOT_PAGES.items() if to == place), f"docs/{place}")
    return moved(markdown, source)
