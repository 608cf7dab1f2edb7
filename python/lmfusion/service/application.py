"""The service as an ASGI application: paths, and what happens to every request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmfusion import _core
from lmfusion.scorer import LMFusionScorer
from lmfusion.service.access import Access, cache_namespace
from lmfusion.service.admission import Admission
from lmfusion.service.body import GONE, Bodies
from lmfusion.service.calls import CALLS, Call, unscored
from lmfusion.service.completions import Completion
from lmfusion.service.limits import Limits
from lmfusion.service.log import LOGGER
from lmfusion.service.metrics import Metrics
from lmfusion.service.refusal import Refusal
from lmfusion.service.wire import error_document, status_of, to_json

JSON = "application/json"
Answer = Callable[[Request, "_Line"], Awaitable[Response]]


class _Line:
    """What the log says of one request."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.waited: float | None = None


class Service:
    """A scorer and who may call it, behind `application`.

    Args:
        scorer: which answers.
        access: tokens; none: everybody.
        limits: of size, time and number.
        name: of the model, in /v1/models and answers.
    """

    def __init__(self, scorer: LMFusionScorer, *, access: Access | None = None,
                 limits: Limits | None = None, name: str = "lmfusion") -> None:
        self.scorer, self.name = scorer, name
        self.access = access or Access({})
        self.limits = limits or Limits()
        self.bodies = Bodies(self.limits)
        self.admission = Admission(self.limits)
        self.metrics = Metrics(scorer, self.admission, self.bodies)
        self._started = int(time.time())
        self.application = Starlette(routes=[
            Route("/healthz", self._open(self._health)),
            Route("/metrics", self._answer(self._metrics)),
            Route("/stats", self._answer(self._stats)),
            Route("/v1/models", self._answer(self._models)),
            Route("/v1/completions", self._answer(self._completions), methods=["POST"]),
            *(Route(f"/{name}", self._answer(self._method(call)), methods=["POST"])
              for name, call in CALLS.items())])

    def _open(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        return self._answer(answer, everybody=True)

    def _answer(self, answer: Answer, everybody: bool = False
                ) -> Callable[[Request], Awaitable[Response]]:
        """Adds access, errors, metrics and the log."""
        async def answered(request: Request) -> Response:
            begin = time.monotonic()
            line = _Line()
            try:
                if not everybody:
                    self._identify(request)
                response = await answer(request, line)
            except Refusal as refusal:
                line.fields["refused"] = refusal.kind
                response = _refused(refusal)
            except Exception as error:
                response = _failed(error)
            self._log(request, response.status_code, time.monotonic() - begin, line)
            return response
        return answered

    def _identify(self, request: Request) -> None:
        name = self.access.name(request.headers.get("authorization"))
        if name is None:
            raise Refusal(401, "Unauthorized", "this service needs a token: "
                          '"Authorization: Bearer TOKEN"')
        request.state.name = name

    def _log(self, request: Request, status: int, seconds: float, line: _Line) -> None:
        path = request.scope["path"]
        self.metrics.answered(path, status, seconds, line.waited)
        fields = {"method": request.method, "path": path, "status": status,
                  "seconds": round(seconds, 6), "client": getattr(request.state, "name", ""),
                  **line.fields}
        if line.waited is not None:
            fields["waited"] = round(line.waited, 6)
        quiet = path in ("/healthz", "/metrics") and status == 200
        LOGGER.log(10 if quiet else 20, "request", extra={"fields": fields})

    def _method(self, kind: type[Call]) -> Answer:
        async def called(request: Request, line: _Line) -> Response:
            async with self.bodies.read(request) as body:
                call = kind.model_validate_json(body)
                namespace = self._admit(request, line, call, len(body), call.cache_namespace)
                result = await self._run(
                    request, line, lambda waited: call.run(self.scorer, namespace, waited))
            left = unscored(result) if getattr(call, "deadline", None) is not None else 0
            if left:
                line.fields["unscored"] = left
            return Response(to_json({"result": result, "unscored": left}), media_type=JSON)
        return called

    async def _completions(self, request: Request, line: _Line) -> Response:
        async with self.bodies.read(request) as body:
            call = Completion.model_validate_json(body)
            call.check()
            namespace = self._admit(request, line, call, len(body), "")
            result = await self._run(
                request, line,
                lambda waited: call.run(self.scorer, namespace, self.name, self.limits))
        return Response(to_json(result), media_type=JSON)

    def _admit(self, request: Request, line: _Line, call: Call | Completion, size: int,
               asked: str) -> str:
        """Checks how much is asked; returns the namespace of the cache."""
        count = call.candidates()
        line.fields |= {"body_bytes": size, "candidates": count}
        if count > self.limits.candidates:
            raise Refusal(413, "TooLarge", f"{count} candidates or texts in a request; "
                          f"{self.limits.candidates} are allowed: ask in several requests")
        return cache_namespace(request.state.name, asked)

    async def _run(self, request: Request, line: _Line, work: Callable[[float], Any]) -> Any:
        def noted(waited: float) -> Any:
            line.waited = waited
            return work(waited)
        return await self.admission.run(noted, request.receive)

    async def _health(self, request: Request, line: _Line) -> Response:
        return Response(to_json({"status": "ok", "version": _core.__version__}), media_type=JSON)

    async def _metrics(self, request: Request, line: _Line) -> Response:
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _stats(self, request: Request, line: _Line) -> Response:
        return Response(to_json(self.scorer.stats().to_dict()), media_type=JSON)

    async def _models(self, request: Request, line: _Line) -> Response:
        options = {name: value for name, value in self.scorer.options.items()
                   if isinstance(value, (str, int, float))}
        description = {name: value for name, value in self.scorer.description.items()
                       if isinstance(value, (str, int, float))}
        model = {"id": self.name, "object": "model", "created": self._started,
                 "owned_by": "lmfusion", "options": options, "description": description,
                 "limits": vars(self.limits)}
        return Response(to_json({"object": "list", "data": [model]}), media_type=JSON)


def _refused(refusal: Refusal) -> Response:
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if refusal.status in (408, 413, 429, GONE):
        headers["Connection"] = "close"  # the rest of the body is not read
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(error_document(refusal.kind, refusal.message, refusal.status), refusal.status,
                    headers, JSON)


def _failed(error: Exception) -> Response:
    """The scorer's errors, which name no text; of others only that there was one."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"])) or "the body"
        return Response(error_document("ValueError", f"{place}: {found['msg']}", 400), 400,
                        media_type=JSON)
    status = status_of(error)
    known = isinstance(error, (_core.Error, ValueError, TypeError, MemoryError))
    if not known:
        LOGGER.error("failure", exc_info=error)
    kind = next((base.__name__ for base in type(error).__mro__
                 if base.__name__ in _NAMES), "Error")
    message = str(error) if known else "the service failed; its log has the place"
    return Response(error_document(kind, message, status), status, media_type=JSON)


_NAMES = {"CacheBudgetError", "NumericalError", "TextError", "Error", "ValueError", "TypeError",
          "MemoryError"}
