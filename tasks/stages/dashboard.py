"""The dashboard (S10), off unless asked for: reachable on a NodePort, with a login whose token is a file."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from shipway.cluster.model import Cluster
from shipway.errors import Blocked, Refused
from shipway.foreign.errors import describe_error
from shipway.kube.access import save_secret
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import foreign, render
from shipway.step import Check, Drift, Impact
from shipway.steps.kubernetes.objects import ObjectAbsent, ObjectsPresent

MANIFEST = "dashboard"
NAMESPACE = "kubernetes-dashboard"
SERVICE = "kubernetes-dashboard"
ACCOUNT = "admin-user"
TOKEN_SECONDS = 24 * 3600
RENEW_SECONDS = 3600  # a token that ends within the hour is no use to somebody who logs in now
BINDINGS = {"cluster-admin": "admin-user", "view": "admin-user-view"}  # a binding's role cannot be changed: one each
RBAC = "rbac.authorization.k8s.io/v1"


def steps(cluster: Cluster) -> list[Check[Kube]]:
    """Return the steps, in order; none where the dashboard is off. Raises Refused without a manifest for it."""
    wanted = cluster.dashboard
    if not wanted.enabled:
        return []
    port = wanted.node_port
    parts = foreign(cluster, MANIFEST, lambda objects: on_node_port(objects, port))
    others = [binding for role, binding in BINDINGS.items() if role != wanted.role]
    login = render("dashboard/login.yaml", role=wanted.role, binding=BINDINGS[wanted.role])
    return [
        ObjectsPresent(f"the dashboard {wanted.version} is in place on port {port} of every node", parts),
        *(
            ObjectAbsent(f"no binding {name} gives the login other rights", RBAC, "ClusterRoleBinding", name)
            for name in others
        ),
        ObjectsPresent(f"{ACCOUNT} may log in to the dashboard with the rights of {wanted.role}", login, Impact.FILES),
        TokenFile(token_path(cluster)),
    ]


def token_path(cluster: Cluster) -> Path:
    """Return the file with the login token, on the machine that runs this."""
    return Path(cluster.state_dir).expanduser() / cluster.name / "dashboard-token"


def on_node_port(objects: list[Object], port: int) -> list[Object]:
    """Return the objects with the dashboard's Service on that port of every node; HTTPS (443) leads to 8443."""
    if not any(_is_service(obj) for obj in objects):
        raise Refused(f"sources.manifests.{MANIFEST} holds no Service {NAMESPACE}/{SERVICE}", code="SHW-110")
    ports = [{"port": 443, "targetPort": 8443, "nodePort": port}]
    return [
        {**obj, "spec": {**obj["spec"], "type": "NodePort", "ports": ports}} if _is_service(obj) else obj
        for obj in objects
    ]


def _is_service(obj: Object) -> bool:
    meta = obj["metadata"]
    return obj["kind"] == "Service" and (meta.get("namespace"), meta["name"]) == (NAMESPACE, SERVICE)


@dataclass(frozen=True)
class TokenFile:
    """A file only its owner can read holds a login token that is still good; the token itself is never shown."""

    impact: ClassVar[Impact] = Impact.FILES
    traps: ClassVar[tuple[int, ...]] = (45,)
    path: Path

    @property
    def name(self) -> str:
        """Where the token is."""
        return f"a login token of the dashboard is in {self.path}"

    async def check(self, on: Kube) -> Drift | None:
        """Look at the file's mode, the token's end, and whether it is of this cluster's account."""
        want = f"a token of {ACCOUNT}, mode 600"
        account = await on.get("v1", "ServiceAccount", ACCOUNT, NAMESPACE)
        if account is None:
            raise Blocked(f"no ServiceAccount {NAMESPACE}/{ACCOUNT} yet")
        try:
            mode, token = self.path.stat().st_mode & 0o777, self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Drift("no such file", want)
        except OSError as error:
            raise Refused(f"{self.path} cannot be read: {describe_error(error)}", code="SHW-114") from error
        fault = f"mode {mode:o}" if mode & 0o077 else _fault(token, account["metadata"]["uid"], time.time())
        return Drift(fault, want) if fault else None

    async def apply(self, on: Kube) -> None:
        """Ask for a token of a day (the API server may give less) and put it into the file."""
        token = await on.create_token(NAMESPACE, ACCOUNT, TOKEN_SECONDS)
        try:
            save_secret(self.path, token + "\n")
        except OSError as error:
            raise Refused(f"{self.path} cannot be written: {describe_error(error)}", code="SHW-114") from error


def _fault(token: str, uid: str, now: float) -> str:
    """Return what is wrong with a token, by the claims it carries in the clear; empty when nothing is."""
    try:
        body = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        ends, life = float(claims["exp"]), float(claims["exp"]) - float(claims["iat"])
        owner = claims["kubernetes.io"]["serviceaccount"]["uid"]
    except (IndexError, ValueError, KeyError, TypeError):
        return "a file that holds no token"
    if owner != uid:
        return "a token of another cluster"
    # Half its life where the API server gives less than we asked for: else it would be renewed at every look.
    return "" if ends > now + min(RENEW_SECONDS, life / 2) else "a token that has ended or ends within the hour"
