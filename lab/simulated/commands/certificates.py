"""openssl, as far as a look asks it: when a certificate ends."""

from __future__ import annotations

from cryptography import x509

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program


@program("openssl")
async def openssl(call: Call) -> int:
    """Say when a certificate ends: `openssl x509 -noout -enddate -in FILE`."""
    asked = parse(call.args[1:], flags="-noout -enddate", values="-in", single_dash=True)
    if call.args[:1] != ("x509",) or not asked.has("-noout") or not asked.has("-enddate"):
        return call.not_simulated()
    path = asked.value("-in")
    content = call.host.files.read(path)
    if content is None:
        return call.warn(f"Could not open file or uri for loading certificate from {path}")
    ends = x509.load_pem_x509_certificate(content).not_valid_after_utc
    return call.say(f"notAfter={ends:%b} {ends.day:>2} {ends:%H:%M:%S %Y} GMT\n")
