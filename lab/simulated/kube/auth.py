"""Who sends a request (client certificate, bearer token) and what they may do (RBAC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.simulated.releases import since

from .api_errors import ApiError, forbidden, forbidden_path, unauthorized
from .objects import Obj, dig, namespace_of
from .signed_tokens import TokenSigner
from .store import Store

ANONYMOUS = "system:anonymous"


@dataclass(frozen=True)
class User:
    """A name and the groups it is in."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a request wants: a verb on a resource (or on a plain path)."""

    verb: str
    path: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def full_resource(self) -> str:
        """Return `pods` or `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Authenticator:
    """Tells users by their certificate or token."""

    def __init__(self, store: Store, signer: TokenSigner) -> None:
        self._store = store
        self._signer = signer

    def user(self, certificate: dict[str, Any] | None, authorization: str) -> User:
        """Return the user of a request. Raises ApiError (401) for a token that nobody knows."""
        if certificate and certificate.get("subject"):
            pairs = [pair for part in certificate["subject"] for pair in part]
            names = [value for key, value in pairs if key == "commonName"]
            groups = [value for key, value in pairs if key == "organizationName"]
            return User(names[0] if names else "", (*groups, "system:authenticated"))
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return User(ANONYMOUS, ("system:unauthenticated",))
        user = self.by_token(token.strip())
        if user is None:
            raise unauthorized()
        return user

    def by_token(self, token: str) -> User | None:
        """Return the user of a bearer token: that of a service account that is still there."""
        claims = self._signer.claims(token)
        namespace = str(dig(claims, "kubernetes.io", "namespace", default=""))
        name = str(dig(claims, "kubernetes.io", "serviceaccount", "name", default=""))
        account = self._store.get("serviceaccounts", namespace, name)
        if account is None or account["metadata"]["uid"] != dig(claims, "kubernetes.io", "serviceaccount", "uid"):
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(f"system:serviceaccount:{namespace}:{name}", groups)


def _subject_is(subject: Obj, user: User, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(name == user.name)
    if kind == "Group":
        return name in user.groups
    return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"


def _allows(rule: Obj, wish: Wish) -> bool:
    if not {"*", wish.verb} & set(rule.get("verbs") or []):
        return False
    if not wish.resource:
        paths = rule.get("nonResourceURLs") or []
        return any(p == wish.path or (p.endswith("*") and wish.path.startswith(p[:-1])) for p in paths)
    if not {"*", wish.group} & set(rule.get("apiGroups") or []):
        return False
    if not {"*", wish.full_resource, f"*/{wish.subresource}"} & set(rule.get("resources") or []):
        return False
    names = rule.get("resourceNames") or []
    return not names or wish.name in names


class Authorizer:
    """RBAC over the roles and bindings in the store, and what the node authorizer keeps from kubelets."""

    def __init__(self, store: Store, minor: int) -> None:
        self._store = store
        self._minor = minor

    def check(self, user: User, wish: Wish) -> None:
        """Pass if the user may. Raises ApiError (403) worded as the real server words it."""
        if not self.may(user, wish):
            raise self._refusal(user, wish, self._kept_from(user, wish))

    def may(self, user: User, wish: Wish) -> bool:
        """Say whether a user may do this."""
        if "system:masters" in user.groups:
            return True
        if self._kept_from(user, wish):
            return False
        return any(_allows(rule, wish) for rule in self._rules(user, wish.namespace))

    def _kept_from(self, user: User, wish: Wish) -> str:
        """Return why a kubelet may not read a Node, empty where nothing is kept from it."""
        node = user.name.removeprefix("system:node:")
        if "system:nodes" not in user.groups or not since(self._minor, "nodes_read_themselves"):
            return ""
        reads = wish.verb in ("get", "list", "watch") and (wish.group, wish.full_resource) == ("", "nodes")
        if not reads or wish.name == node:
            return ""
        what = f"'{wish.name}'" if wish.name else "all nodes"
        return f"node '{node}' cannot read {what}, only its own Node object"

    def _rules(self, user: User, namespace: str) -> list[Obj]:
        bindings = self._store.objects("clusterrolebindings.rbac.authorization.k8s.io")
        if namespace:
            bindings = bindings + self._store.objects("rolebindings.rbac.authorization.k8s.io", namespace)
        rules: list[Obj] = []
        for binding in bindings:
            place = namespace_of(binding)
            if any(_subject_is(subject, user, place) for subject in binding.get("subjects") or []):
                rules += self._role_rules(binding["roleRef"], place)
        return rules

    def _role_rules(self, reference: Obj, namespace: str) -> list[Obj]:
        if reference["kind"] == "ClusterRole":
            role = self._store.get("clusterroles.rbac.authorization.k8s.io", "", reference["name"])
        else:
            role = self._store.get("roles.rbac.authorization.k8s.io", namespace, reference["name"])
        return list((role or {}).get("rules") or [])

    def _refusal(self, user: User, wish: Wish, reason: str) -> ApiError:
        if not wish.resource:
            return forbidden_path(wish.path, user.name, wish.verb)
        where = f'in the namespace "{wish.namespace}"' if wish.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {wish.verb} resource "{wish.full_resource}" in API group "{wish.group}" {where}'
        )
        return forbidden(wish.resource, wish.group, wish.name, f"{why}: {reason}" if reason else why)
