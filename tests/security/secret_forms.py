"""How secrets look: bootstrap tokens, service account tokens, private keys, certificate keys; in text and in bytes."""

from __future__ import annotations

import re

BOOTSTRAP_TOKEN = re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b")
SECRET_FORMS = re.compile(
    rf"{BOOTSTRAP_TOKEN.pattern}|\beyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]+\.|PRIVATE KEY|certificate-key|client-key-data"
)
