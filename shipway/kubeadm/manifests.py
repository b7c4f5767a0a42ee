"""How scripts on a host read a static pod's manifest as kubeadm writes it: one shell function for all of them."""

from __future__ import annotations

from pathlib import Path

# Defines `flag_in NAME MANIFEST`.
FLAG_IN = Path(__file__).with_name("flag.sh").read_text(encoding="utf-8")
