"""What a host says that it is: /etc/os-release, which every family has (os-release(5))."""

from __future__ import annotations

from shipway.facts.files import FileText

RELEASE = FileText("/etc/os-release")


def os_release(text: str) -> dict[str, str]:
    """Return the pairs of /etc/os-release, unquoted."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
