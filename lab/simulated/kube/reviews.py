"""TokenReview and SelfSubjectAccessReview: who is it, and what may I do."""

from __future__ import annotations

from .auth import Authenticator, Authorizer, User, Wish
from .objects import Obj, dig


def token_review(authenticator: Authenticator, body: Obj) -> Obj:
    """Return a TokenReview with its status."""
    user = authenticator.by_token(str(dig(body, "spec", "token", default="")))
    status: Obj = {"authenticated": False, "user": {}}
    if user is not None:
        status = {"authenticated": True, "user": {"username": user.name, "groups": list(user.groups)}}
    return {**body, "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}


def access_review(authorizer: Authorizer, user: User, body: Obj) -> Obj:
    """Return a SelfSubjectAccessReview with its status."""
    asked = dig(body, "spec", "resourceAttributes", default={})
    plain = dig(body, "spec", "nonResourceAttributes", default={})
    wish = Wish(
        verb=str(asked.get("verb") or plain.get("verb") or ""),
        path=str(plain.get("path", "")),
        group=str(asked.get("group", "")),
        resource=str(asked.get("resource", "")),
        subresource=str(asked.get("subresource", "")),
        namespace=str(asked.get("namespace", "")),
        name=str(asked.get("name", "")),
    )
    status = {"allowed": authorizer.may(user, wish)}
    return {**body, "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "status": status}
