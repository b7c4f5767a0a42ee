"""The options that the command lines have in common that take a host out."""

from __future__ import annotations

from pathlib import Path

from flows.cli.command import Parser


def add_common(
    made: Parser,
    *,
    optional: bool = False,
    file: str = "the cluster file",
    address: str = "where a host is that the file does not name",
) -> None:
    """Add what these commands take; `optional` says that no host need be named, `file` and `address` are help texts."""
    made.add_argument("cluster_file", type=Path, help=file)
    made.add_argument("name", metavar="HOST", nargs="?" if optional else None, default="", help="the host's name")
    made.add_argument("--plan", action="store_true", help="change nothing, name every refusal and what would be done")
    made.add_argument("--address", default="", metavar="HOST[:PORT]", help=address)
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
