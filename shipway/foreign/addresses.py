"""Addresses in the forms that other programs take and write."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def in_url(host: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2), all else as it is."""
    return f"[{host}]" if ":" in host else host


def as_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is; None for a name."""
    try:
        return ip_address(text)
    except ValueError:
        return None
