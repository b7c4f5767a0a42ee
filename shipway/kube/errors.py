"""Every failure of a call to the Kubernetes API as one of our errors: its type says whether to try again."""

from __future__ import annotations

import json
import ssl
from typing import Any

import aiohttp

from shipway.errors import ApiRefused, ApiUnavailable, Blocked, ShipwayError
from shipway.foreign.errors import describe_error
from shipway.redact import tail

# Try again: too many requests, a fault inside, no healthy server behind a balancer, a gateway's own time-out; 410 is
# a list token or a watch that became too old (Kubernetes documentation, "API Concepts" and "HTTP status codes").
PASSING = frozenset({408, 410, 429, 500, 502, 503, 504})
NOT_FOUND = 404
CONFLICT = 409


class KindMissing(Blocked):
    """The API does not serve this kind (yet): its CustomResourceDefinition is not there or not established."""

    default_code = "SHW-501"
    default_fix = "Apply the CustomResourceDefinition first; a bootstrap does so in its order."


def kind_missing(api_version: str, kind: str) -> KindMissing:
    """Return the error for a kind that the API's discovery does not list."""
    return KindMissing(f"the Kubernetes API does not know {kind} of {api_version} yet")


def status_of(text: str) -> dict[str, Any]:
    """Return the Status object of an API's answer; an empty one where the text is something else."""
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def refusal(what: str, code: int, text: str) -> ShipwayError:
    """Return the error for an answer that is no success; `what` names the request, like `PATCH node/gpu-03`.

    Codes 408, 410, 429, 500, 502, 503, 504 and a lost race between two writers may pass; all others are permanent.
    """
    status = status_of(text)
    reason = str(status.get("reason", ""))
    said = tail(str(status.get("message") or text or "no text"), 6)
    message = f"{what}: the Kubernetes API answered {code}{f' {reason}' if reason else ''}: {said}"
    unfit = "failed to create typed patch object" in said  # a 500, though it is the object that is wrong
    if (code in PASSING and not unfit) or (code == CONFLICT and reason == "Conflict" and not _has_owner(status)):
        return ApiUnavailable(message)
    return ApiRefused(message, fix=_fix(code, reason))


def _has_owner(status: dict[str, Any]) -> bool:
    """Say whether a conflict is with another owner of a field, not a race between two writers."""
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "FieldManagerConflict" for cause in causes)


def _fix(code: int, reason: str) -> str:
    """Return the next thing to do, by HTTP code."""
    known = {
        401: "The API does not accept the certificate of admin.conf: see `kubeadm certs check-expiration` on its host.",
        403: "An admission rule or a right forbids it: read the reason, then change the rule or the object.",
        409: f"Another owner holds it ({reason or 'conflict'}): find that owner in the object's managedFields.",
        415: "The API server is too old for server-side apply: Kubernetes 1.20 or newer is needed.",
        422: "The API says which field is wrong: correct the manifest.",
    }
    return known.get(code, "")


def no_answer(what: str, error: BaseException, seconds: float) -> ShipwayError:
    """Return the error for a request without an answer: a wrong certificate, or the way to the API is broken."""
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        fix = "Something else answers on that address, or the cluster was made anew: look at its certificate."
        return ApiRefused(f"{what}: the API's certificate is not of this cluster ({error})", code="SHW-313", fix=fix)
    if isinstance(error, TimeoutError):
        return ApiUnavailable(f"{what}: no answer from the Kubernetes API within {seconds:.0f} s")
    return ApiUnavailable(f"{what}: the Kubernetes API cannot be reached ({describe_error(error)})")
