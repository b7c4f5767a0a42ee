"""The calls that Shipway makes to a Kubernetes API, over any way to send a request; reads are shared within a look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from shipway.kube.errors import NOT_FOUND, kind_missing, refusal
from shipway.kube.paths import Object, Resource, resource_in, root_of, title, with_protocols
from shipway.kube.pod_states import events_about
from shipway.kube.reads import JSON, Reads, parse_object

PAGE = 500  # objects a list call, as kubectl asks
MANAGER = "shipway"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
OK = 200
ACCEPTED = 202
NO_CONTENT = 204
SUCCESS = range(200, 300)
BAD_REQUEST = 400


class Calls(Reads):
    """`get`, `list_`, `raw`, `logs` look; `apply`, `patch`, `delete`, `create_token` change.

    Every call raises ApiUnavailable (may pass), ApiRefused (will not), KindMissing (no such kind yet), or the errors
    of the way there; each is bounded by a number of seconds. Objects given back are shared: do not change them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resources: dict[tuple[str, str], Resource] = {}

    async def version(self) -> str:
        """Return the server's version, like v1.31.7."""
        code, text = await self.raw("/version")
        if code != OK:
            raise refusal("GET /version", code, text)
        return str(parse_object(text, "GET /version").get("gitVersion", ""))

    async def resource(self, api_version: str, kind: str) -> Resource:
        """Return where objects of a kind live; raises KindMissing. What was found once is kept."""
        key = (api_version, kind)
        if key not in self._resources:
            code, text = await self.raw(root_of(api_version))
            if code == NOT_FOUND:
                raise kind_missing(api_version, kind)
            if code != OK:
                raise refusal(f"discovery of {api_version}", code, text)
            self._resources[key] = resource_in(parse_object(text, f"discovery of {api_version}"), api_version, kind)
        return self._resources[key]

    async def kinds(self) -> list[tuple[str, str]]:
        """Return (apiVersion, kind) of all that can be listed, each by the first version that its group names.

        What another API server serves (an APIService with a service: metrics and the like) is left out.
        """
        versions = ["v1", *await self._of_groups()]
        specs = [one["spec"] for one in await self.list_("apiregistration.k8s.io/v1", "APIService")]
        others = {f"{one.get('group')}/{one.get('version')}" for one in specs if one.get("service")}
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for version in (one for one in versions if one not in others):
            code, text = await self.raw(root_of(version))
            if code != OK:
                raise refusal(f"discovery of {version}", code, text)
            for entry in parse_object(text, f"discovery of {version}").get("resources") or ():
                if "list" in (entry.get("verbs") or ()) and "/" not in entry.get("name", "/"):
                    group = version.rpartition("/")[0]
                    found.setdefault((group, str(entry["kind"])), (version, str(entry["kind"])))
        return list(found.values())

    async def _of_groups(self) -> list[str]:
        """Return each group's versions, the preferred one first."""
        code, text = await self.raw("/apis")
        if code != OK:
            raise refusal("discovery of groups", code, text)
        groups = parse_object(text, "discovery of groups").get("groups") or ()
        named = [
            one["groupVersion"]
            for group in groups
            for one in (group.get("preferredVersion") or {}, *(group.get("versions") or ()))
            if one.get("groupVersion")
        ]
        return list(dict.fromkeys(map(str, named)))

    async def get(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, fresh: bool = False
    ) -> Object | None:
        """Return an object, or None where there is none; `fresh` looks anew at this one, whatever is known."""
        path = (await self.resource(api_version, kind)).path(name, namespace)
        if fresh:
            self._known.pop(path, None)
        code, text = await self.raw(path)
        if code == NOT_FOUND:
            return None
        if code != OK:
            raise refusal(f"GET {kind}/{name}", code, text)
        return parse_object(text, f"GET {kind}/{name}")

    async def list_(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Return all objects of a kind, of one namespace or of all, by label and field selectors."""
        path = (await self.resource(api_version, kind)).path(namespace=namespace)
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields, "continue": ""}
        items: list[Object] = []
        while True:
            one = await self._answered(_with(path, query))
            code, text = one.result()
            if code != OK:
                raise refusal(f"list of {kind}", code, text)
            page, found = self._page(one, f"GET {path}", {"apiVersion": api_version, "kind": kind})
            items += found
            query["continue"] = (page.get("metadata") or {}).get("continue", "")
            if not query["continue"]:
                return items

    async def logs(self, namespace: str, pod: str, *, lines: int = 200) -> str:
        """Return the last lines a pod printed; empty where its container has not started or is gone."""
        path = (await self.resource("v1", "Pod")).path(pod, namespace, under="log")
        code, text = await self.raw(_with(path, {"tailLines": str(lines)}))
        if code in (NO_CONTENT, BAD_REQUEST, NOT_FOUND):  # 204: not scheduled; 400: "container is waiting to start"
            return ""
        if code != OK:
            raise refusal(f"log of pod {namespace}/{pod}", code, text)
        return text

    async def events_of(self, pod: Mapping[str, Any]) -> list[str]:
        """Return the events about a pod as it is now, as `reason: message`, oldest first (`events_about`)."""
        meta = pod["metadata"]
        events = await self.list_("v1", "Event", meta["namespace"], fields=f"involvedObject.name={meta['name']}")
        return events_about(pod, events)

    # --- changing

    async def apply(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Apply an object on the server's side as field manager `shipway`, with force; return it as the server has it.

        With `dry_run` nothing is changed: the answer is what it would become, defaults and admission included.
        """
        meta = obj["metadata"]
        path = (await self.resource(obj["apiVersion"], obj["kind"])).path(meta["name"], meta.get("namespace", ""))
        query = {"fieldManager": MANAGER, "force": "true", "dryRun": "All" if dry_run else ""}
        return await self._change(
            "PATCH", _with(path, query), title(obj), body=with_protocols(obj), media=APPLY, forget=not dry_run
        )

    async def dry_run_apply(self, obj: Mapping[str, Any]) -> Object:
        """Return what the object would become by `apply`; changes nothing."""
        return await self.apply(obj, dry_run=True)

    async def patch(
        self, api_version: str, kind: str, name: str, changes: Object, namespace: str = "", *, under: str = ""
    ) -> Object:
        """Merge changes into an object (RFC 7386), or into its subresource `under`.

        With metadata.resourceVersion it is done only if nobody wrote meanwhile.
        """
        path = (await self.resource(api_version, kind)).path(name, namespace, under=under)
        return await self._change("PATCH", path, f"{kind}/{name}", body=changes, media=MERGE)

    async def delete(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, grace: int | None = None, uid: str = ""
    ) -> bool:
        """Ask for the deletion of an object (of this `uid` alone), `grace` in seconds; return whether it was there."""
        path = (await self.resource(api_version, kind)).path(name, namespace)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        code, text = await self.send("DELETE", path, body=options)
        self.forget()
        if code not in (OK, ACCEPTED, NOT_FOUND):
            raise refusal(f"DELETE {kind}/{name}", code, text)
        return code != NOT_FOUND

    async def create_token(self, namespace: str, account: str, seconds: int) -> str:
        """Return a new token of a service account; the server may shorten its life of `seconds`. A secret."""
        path = (await self.resource("v1", "ServiceAccount")).path(account, namespace, under="token")
        spec = {"expirationSeconds": seconds}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._change("POST", path, f"token of {namespace}/{account}", body=request, forget=False)
        return str(answer["status"]["token"])

    async def _change(
        self,
        method: str,
        path: str,
        what: str,
        *,
        body: Mapping[str, Any],
        media: str = JSON,
        forget: bool = True,
    ) -> Object:
        """Send a change; return the object of the answer."""
        code, text = await self.send(method, path, body=body, media=media)
        if forget:
            self.forget()
        if code not in SUCCESS:
            raise refusal(f"{method} {what}", code, text)
        return parse_object(text, f"{method} {what}")


def _with(path: str, query: Mapping[str, str]) -> str:
    """Return a path with those parts of the query that say something."""
    said = [(key, value) for key, value in query.items() if value]
    return f"{path}?{urlencode(said)}" if said else path
