"""The paths of the service: /score, /healthz, /metrics and /docs."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import swagger_ui_bundle
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from lmmvqa.scoring.fetching import PublicUrl
from lmmvqa.serving import ServiceLimits, descriptions
from lmmvqa.serving.metrics import Metrics
from lmmvqa.serving.scoring_queue import ScoringQueue
from lmmvqa.serving.uploads import blocks_of, receive
from modeling_lmmvqa.video_score import VideoScore

# Of a request that names a URL.
_LARGEST_JSON = 2**16
# As servers call a client that went away; nobody gets this answer.
_CLIENT_GONE = 499
# How often is looked whether a client is still there, in seconds.
_LOOK_EVERY = 0.5


def build(queue: ScoringQueue, limits: ServiceLimits, allow_urls: bool = False) -> FastAPI:
    """The service over a queue."""
    app = FastAPI(
        title=descriptions.TITLE,
        summary=descriptions.SUMMARY,
        version=version("lmmvqa"),
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics()
    queue.watch_batch = metrics.batches.observe
    metrics.readers_lost.set_function(lambda: queue.readers_lost)
    counter = _Counter(limits, metrics)
    bodies = {"multipart/form-data": descriptions.FORM}
    if allow_urls:
        bodies["application/json"] = descriptions.URL

    @app.post(
        "/score",
        summary="Score a video",
        response_model=None,
        responses=_answers(queue.scorer.processor.questions),
        openapi_extra={"requestBody": {"required": True, "content": bodies}},
    )
    async def score(request: Request) -> Response:
        """Send one file in a form: `curl -F file=@clip.mp4 ADDRESS/score`. The answer is the row that
        `lmmvqa score --json` prints."""
        return await counter.count(request, answer)

    async def answer(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in bodies:
            ways = "a form with a file (curl -F file=@clip.mp4 ...)"
            ways += ' or JSON such as {"url": "https://..."}' if allow_urls else ""
            raise HTTPException(415, f"Send {ways}, not {kind or 'a body without Content-Type'}.")
        largest = limits.upload_megabytes * 2**20
        if kind == "application/json":
            return await scored(request, PublicUrl(await _url_in(request, limits.seconds), largest))
        async with receive(request, largest, limits.seconds) as video:
            return await scored(request, video)

    async def scored(request: Request, video: Any) -> Response:
        job = queue.submit(video)
        gone = asyncio.ensure_future(_client_gone(request))
        result = asyncio.wrap_future(job.future)
        try:
            await asyncio.wait({result, gone}, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientDisconnect
            if not result.done():
                raise HTTPException(
                    504,
                    f"{video.name} was not scored within {limits.seconds:g} s. Send a shorter or smaller one, or ask "
                    "again when less is going on.",
                )
            row: VideoScore = result.result()
        finally:
            gone.cancel()
            job.give_up()
        metrics.video_seconds.inc(row.duration_s or 0.0)
        return JSONResponse(row.as_row(), 200 if row.error is None else 422)

    @app.get("/healthz", summary="Whether the service is up")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": version("lmmvqa")}

    @app.get("/metrics", summary="Counters in Prometheus' form", response_class=Response)
    async def show_metrics() -> Response:
        return Response(metrics.as_text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # From this machine, which may have no network, and under whatever path a proxy puts it.
        assets = {f"swagger_{kind}_url": f"docs/assets/{name}" for kind, name in _SWAGGER.items()}
        return get_swagger_ui_html(openapi_url="openapi.json", title=descriptions.TITLE, **assets)

    app.mount("/docs/assets", StaticFiles(directory=swagger_ui_bundle.swagger_ui_path))

    @app.exception_handler(AnyHTTPException)
    async def refuse(_: Request, error: AnyHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The service has a fault of its own; its log says more."}, 500)

    return app


_SWAGGER = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css", "favicon": "favicon-32x32.png"}


class _Counter:
    """Lets in as many requests as there is room for, and counts how they end."""

    def __init__(self, limits: ServiceLimits, metrics: Metrics):
        self._room, self._metrics = limits.requests, metrics
        self._under_way = 0
        # Of the last videos, on average, from the arrival of one to its score.
        self._seconds = 1.0

    async def count(self, request: Request, answer: Callable[[Request], Any]) -> Response:
        """Raises:
        HTTPException: 429 where there is no room, and what the answer raises.
        """
        status, began = 500, time.monotonic()
        self._under_way += 1
        self._metrics.under_way.set(self._under_way)
        try:
            if self._under_way > self._room:
                # By then about half of them have their answer.
                raise HTTPException(
                    429,
                    f"The service is at work on {self._room} requests, which is its limit. Ask again later.",
                    {"Retry-After": str(max(1, math.ceil(self._seconds / 2)))},
                )
            response = await answer(request)
            status = response.status_code
            if status == 200:
                took = time.monotonic() - began
                self._seconds += (took - self._seconds) / 8
                self._metrics.seconds.observe(took)
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        except ClientDisconnect:
            status = _CLIENT_GONE
            return Response(status_code=status)
        finally:
            self._under_way -= 1
            self._metrics.under_way.set(self._under_way)
            self._metrics.requests.labels(str(status)).inc()


async def _client_gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_EVERY)


async def _url_in(request: Request, seconds: float) -> str:
    """Raises:
    HTTPException: 400 where the body is not what is expected; those of `blocks_of`.
    """
    body = b"".join([block async for block in blocks_of(request, _LARGEST_JSON, seconds)])
    try:
        content = json.loads(body)
    # Also of nesting that Python can't follow.
    except (ValueError, RecursionError):
        content = None
    url = content.get("url") if isinstance(content, dict) else None
    # Half of a character that takes two would make an answer that can't be written.
    if not isinstance(url, str) or not url or not url.isprintable():
        raise HTTPException(400, 'The body is not JSON such as {"url": "https://example.org/clip.mp4"}.')
    return url


def _answers(questions: Sequence[Any]) -> dict[int | str, dict[str, Any]]:
    """Every answer of /score for the description."""
    row = descriptions.row_model(questions)

    def with_example(text: str, example: dict[str, Any]) -> dict[str, Any]:
        return {"model": row, "description": text, "content": {"application/json": {"example": example}}}

    refusals = {
        400: "The form or the JSON can't be read.",
        408: "The file did not arrive in time.",
        413: "The file is too large.",
        415: "The body is of a kind that is not taken.",
        429: "There is no room; `Retry-After` says in how many seconds to ask again.",
        500: "A fault of the service.",
        504: "The video was not scored in time.",
        507: "The service has no room on its disk.",
    }
    return {
        200: with_example("The video has a score.", descriptions.scored_example(questions)),
        422: with_example("The file can't be scored: `error` says why.", descriptions.unreadable_example(questions)),
        **{status: {"model": descriptions.Refusal, "description": text} for status, text in refusals.items()},
    }
