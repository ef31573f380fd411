"""The API's paths: each request is checked against the client's models before it has an effect, each answer before it goes.

An answer that the models do not allow is a mistake of the double; it is kept in `Api.dishonest`, and no test passes with one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel
from runai import models

from tests.runai import listing, organization, schema, views
from tests.runai.faults import Fate, Fault
from tests.runai.plane import PROJECT, ControlPlane, Refused, not_found
from tests.runai.tokens import CLIENT_ID, CLIENT_SECRET
from tests.runai.workload import OVER, Workload

KIND = {"trainings": "training", "distributed": "distributed"}
REQUESTS = {"training": models.TrainingCreationRequest, "distributed": models.DistributedCreationRequest}
ANSWERS = {"training": models.Training1, "distributed": models.DistributedWorkload}
TOO_MANY = 429


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refused(400, "request body is not JSON") from None


@dataclass(frozen=True)
class Answer:
    """What goes back: JSON, or plain text."""

    status: int
    payload: Any
    model: type[BaseModel] | None = None
    """None where the API documents no model: the cluster's own paths, and lists of plain text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    fate: Fate = Fate.ANSWER
    seconds: float = 0.0

    def body(self) -> tuple[bytes, str]:
        """(bytes, content type)."""
        if isinstance(self.payload, str):
            return self.payload.encode(), "text/html" if self.fate is Fate.GATEWAY else "text/plain; charset=utf-8"
        return json.dumps(self.payload).encode(), "application/json"


Handler = Callable[..., Answer]


class Api:
    """Answers requests for a control plane; may be called by many threads."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.seen: list[tuple[str, str]] = []
        """(method, path) of each request."""
        self.dishonest: list[str] = []
        one = r"/api/v1/workloads/(trainings|distributed)/([^/]+)"
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(path), handler)
            for method, path, handler in (
                ("POST", r"/api/v1/workloads/(trainings|distributed)", self._create),
                ("GET", one, self._created),
                ("DELETE", one, self._delete),
                ("POST", one + r"/(suspend|resume)", self._stop_or_go),
                ("POST", r"/api/v1/workloads/batch", self._batch),
                ("GET", r"/api/v1/workloads", self._list),
                ("GET", r"/api/v1/workloads/count", self._count),
                ("GET", r"/api/v1/workloads/pods", self._all_pods),
                ("GET", r"/api/v1/workloads/([^/]+)", self._detail),
                ("GET", r"/api/v1/workloads/([^/]+)/pods", self._pods),
                ("GET", r"/api/v1/workloads/([^/]+)/events", self._events),
                ("GET", r"/api/v1/workloads/([^/]+)/history", self._history),
                ("GET", r"/api/v1/org-unit/projects", self._projects),
                ("GET", r"/api/v1/clusters", self._clusters),
                ("GET", r"/api/v1/node-pools", self._node_pools),
                ("GET", r"/api/v1/nodes", self._nodes),
                ("GET", r"/api/v1/workload-priorities", self._priorities),
                ("GET", r"/cluster-api/status", self._cluster_status),
                ("GET", r"/cluster-api/api/v1/([^/]+)/workloads/training/\w+/([^/]+)/logs(?:/download)?", self._logs),
            )
        ]

    def handle(self, request: Request) -> Answer:
        """What the client gets; the request has its effect first, where it has one."""
        with self.plane.lock:
            self.seen.append((request.method, request.path))
            self.plane.advance()
            limit = self.plane.knobs.rate_limit
            if limit is not None and len(self.seen) % limit == 0:
                return Answer(TOO_MANY, _error(TOO_MANY, "Too many requests."), models.Error, {"retry-after": "1"})
            fault = self.plane.faults.take(request.method, request.path)
            if fault is not None and not fault.accepted:
                return _instead(fault)
            answer = self._honest(self._answer(request))
            if fault is None:
                return answer
            fault.afterwards()
            return answer if fault.fate is Fate.ANSWER and not fault.seconds else _instead(fault, answer)

    def _answer(self, request: Request) -> Answer:
        try:
            if request.method == "POST" and request.path in ("/api/v1/token", "/api/v2/token"):
                return self._token(request)
            if not self.plane.tokens.accepts(request.headers.get("authorization")):
                raise Refused(401, "Issuer is not familiar.")
            for method, path, handler in self._routes:
                match = path.fullmatch(request.path)
                if match and method == request.method:
                    return handler(request, *match.groups())
            raise Refused(404, f"no such path: {request.method} {request.path}")
        except Refused as refused:
            return Answer(refused.status, _error(refused.status, refused.message, refused.details), models.Error)
        except listing.BadQuery as error:
            return Answer(400, _error(400, str(error)), models.Error)

    def _honest(self, answer: Answer) -> Answer:
        wrong = schema.problems(answer.model, answer.payload) if answer.model else []
        self.dishonest += wrong
        return self._unknown_phases(answer) if not wrong else Answer(500, _error(500, f"the double: {wrong}"))

    def _unknown_phases(self, answer: Answer) -> Answer:
        """Phases that no model knows are shown after the models were asked."""
        shown = self.plane.faults.phases
        if shown and isinstance(answer.payload, dict):
            rows = answer.payload.get("workloads", [answer.payload])
            for row in rows:
                phase = shown.get(row.get("id") or row.get("workloadId"), shown.get("*"))
                for key in ("phase", "actualPhase"):
                    if phase is not None and key in row:
                        row[key] = phase
        return answer

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def _token(self, request: Request) -> Answer:
        return self._token_v2(request) if request.path.startswith("/api/v2") else self._token_v1(request)

    def _token_v2(self, request: Request) -> Answer:
        if self.plane.knobs.token_form != "v2":
            raise Refused(404, "no such path")
        form = dict(parse_qsl(request.body.decode()))
        if "x-www-form-urlencoded" not in request.headers.get("content-type", ""):
            return Answer(400, {"error": "invalid_request"}, models.OAuth2Error)
        if form.get("grant_type") != "client_credentials":
            return Answer(400, {"error": "unsupported_grant_type"}, models.OAuth2Error)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            wrong = {"error": "invalid_client", "error_description": "Invalid client or Invalid client credentials"}
            return Answer(401, wrong, models.OAuth2Error)
        token = {"access_token": self.plane.tokens.issue(), "token_type": "Bearer"}
        return Answer(200, token | {"expires_in": int(self.plane.tokens.ttl_s)}, models.OAuth2TokenResponse)

    def _token_v1(self, request: Request) -> Answer:
        """Its names come in several spellings, one of them that of the client itself; case tells nothing apart here."""
        body = {key.lower(): value for key, value in request.json().items()}
        grant = body.get("granttype")
        names = ("appid", "appsecret") if grant == "app_token" else ("clientid", "clientsecret")
        if grant not in ("app_token", "client_credentials"):
            raise Refused(400, f"grant type {grant} is not supported")
        if grant == "app_token" and self.plane.knobs.app_token == "refused":
            raise Refused(400, "grant type app_token is not supported")
        if tuple(body.get(name) for name in names) != (CLIENT_ID, CLIENT_SECRET):
            raise Refused(401, "Invalid client or Invalid client credentials")
        token = {"accessToken": self.plane.tokens.issue(), "expiresIn": int(self.plane.tokens.ttl_s)}
        return Answer(200, token, models.TokenResponse)

    # ---- workloads -------------------------------------------------------------------------------------------------

    def _create(self, request: Request, path: str) -> Answer:
        body, kind = request.json(), KIND[path]
        wrong = schema.problems(REQUESTS[kind], body)
        if self.plane.knobs.unknown_fields == "ignored":
            wrong = [problem for problem in wrong if "unknown field" not in problem]
        if wrong:
            raise Refused(400, "request body has an error", "; ".join(wrong))
        workload = self.plane.create(kind, body)
        return Answer(202, views.created(workload, PROJECT), ANSWERS[kind])

    def _created(self, _request: Request, path: str, id_: str) -> Answer:
        workload = self.plane.find(id_, KIND[path])
        return Answer(200, views.created(workload, PROJECT), ANSWERS[workload.kind])

    def _delete(self, _request: Request, path: str, id_: str) -> Answer:
        self.plane.delete(self.plane.find(id_, KIND[path]))
        return _accepted("delete request has been accepted")

    def _stop_or_go(self, _request: Request, path: str, id_: str, verb: str) -> Answer:
        workload = self.plane.find(id_, KIND[path])
        (self.plane.suspend if verb == "suspend" else self.plane.resume)(workload)
        return _accepted(f"{verb} request has been accepted")

    def _batch(self, request: Request) -> Answer:
        body = request.json()
        if wrong := schema.problems(models.WorkloadBatch, body):
            raise Refused(400, "request body has an error", "; ".join(wrong))
        verbs = {"delete": self.plane.delete, "suspend": self.plane.suspend, "resume": self.plane.resume}
        succeeded, failed = [], []
        for id_ in body["ids"]:
            try:
                verbs[body["action"]](self.plane.find(id_))
                succeeded.append(id_)
            except Refused as refused:
                failed.append({"id": id_, "code": refused.status, "message": refused.message})
        answer = {"id": "batch", "succeeded": succeeded, "failed": failed}
        return Answer(200, answer, models.BatchResponse)

    def _rows(self, request: Request) -> list[dict[str, Any]]:
        deleted = request.query.get("deleted") == "true"
        shown = self.plane.knobs.env_in_list == "shown"
        return [views.row(workload, PROJECT, shown) for workload in self.plane.listed(deleted)]

    def _page(self, request: Request) -> listing.Page:
        ignored = ("=^",) if self.plane.knobs.starts_with_filter == "ignored" else ()
        return listing.page(self._rows(request), request.query, views.LIST_FIELDS, ignored)

    def _list(self, request: Request) -> Answer:
        page = self._page(request)
        more = {} if page.next is None else {"next": page.next}
        return Answer(200, {"workloads": page.items} | more, models.GetWorkloads200Response)

    def _count(self, request: Request) -> Answer:
        query = {**request.query, "limit": str(listing.MAX_LIMIT), "offset": "0"}
        page = listing.page(self._rows(request), query, views.LIST_FIELDS)
        return Answer(200, {"count": len(page.items)}, models.CountResponse)

    def _detail(self, _request: Request, id_: str) -> Answer:
        workload = self.plane.find(id_)
        row = views.row(workload, PROJECT, shows_environment=True)
        messages = {"pendingSchedulingMessages": views.pending_messages(workload)}
        return Answer(200, row | messages, models.WorkloadDetailed)

    def _pods(self, _request: Request, id_: str) -> Answer:
        workload = self.plane.find(id_)
        return self._pod_list([(workload, pod) for pod in workload.pods])

    def _all_pods(self, request: Request) -> Answer:
        wanted = dict(part.split("==") for part in request.query.get("filterBy", "").split(",") if "==" in part)
        workloads = [one for one in self.plane.listed(deleted=False) if wanted.get("workloadId", one.id) == one.id]
        return self._pod_list([(workload, pod) for workload in workloads for pod in workload.pods])

    def _pod_list(self, pods: list[tuple[Workload, Any]]) -> Answer:
        rows = [views.pod_row(pod, workload, PROJECT) for workload, pod in pods]
        return Answer(200, {"pods": rows}, models.ListPods200Response)

    def _events(self, _request: Request, id_: str) -> Answer:
        workload = self.plane.find(id_)
        rows = [views.event_row(event, workload, PROJECT) for event in workload.events]
        return Answer(200, {"events": rows}, models.GetWorkloadEvents200Response)

    def _history(self, _request: Request, id_: str) -> Answer:
        rows = views.history_rows(self.plane.find(id_), PROJECT)
        return Answer(200, {"records": rows}, models.GetWorkloadHistory200Response)

    # ---- the organisation, and the cluster ---------------------------------------------------------------------------

    def _projects(self, request: Request) -> Answer:
        fields = {name: name for name in ("id", "name", "clusterId")}
        page = listing.page([organization.project()], request.query, fields)
        return Answer(200, {"projects": page.items}, schema.OrgUnitProjects)

    def _clusters(self, _request: Request) -> Answer:
        return Answer(200, [organization.cluster(self.plane)], schema.Clusters)

    def _node_pools(self, _request: Request) -> Answer:
        return Answer(200, {"nodepools": organization.node_pools(self.plane)}, models.GetNodepools200Response)

    def _nodes(self, _request: Request) -> Answer:
        if not self.plane.shows_nodes:
            raise Refused(403, "You do not have sufficient permissions.")
        return Answer(200, {"nodes": organization.nodes(self.plane)}, models.Nodes)

    def _priorities(self, _request: Request) -> Answer:
        return Answer(200, {"priorities": organization.priorities()}, models.GetWorkloadPriorities200Response)

    def _cluster_status(self, _request: Request) -> Answer:
        return Answer(200, {"status": "ok"})

    def _logs(self, _request: Request, project: str, name: str) -> Answer:
        named = [one for one in self.plane.listed(deleted=False) if one.name == name and project == PROJECT["name"]]
        if not named or (named[-1].stage in OVER and self.plane.knobs.log_retention == "gone"):
            raise not_found()
        log = self.plane.cluster.log(named[-1])
        return Answer(200, log.read_text(errors="replace") if log.exists() else "")


def _error(status: int, message: str, details: str | None = None) -> dict[str, Any]:
    return {"code": status, "message": message} | ({} if details is None else {"details": details})


def _accepted(message: str) -> Answer:
    return Answer(202, {"code": 202, "message": message}, models.HttpResponse)


def _instead(fault: Fault, answer: Answer | None = None) -> Answer:
    """What a client gets of a request that met a fault."""
    if fault.fate is Fate.STATUS:
        issues = [{"field": field, "details": "not allowed by the policy"} for field in fault.issues]
        more = {"complianceIssues": issues} if issues else {}
        return Answer(fault.status, _error(fault.status, "Please try again in few minutes.") | more)
    if fault.fate is Fate.GATEWAY:
        return Answer(fault.status, "<html><h1>Bad Gateway</h1></html>", fate=fault.fate)
    if fault.fate is Fate.ANSWER and answer is not None:
        return Answer(answer.status, answer.payload, headers=answer.headers, seconds=fault.seconds)
    return Answer(0, "", fate=fault.fate, seconds=fault.seconds)
