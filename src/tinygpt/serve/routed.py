"""Several specialists behind one model: a conversation goes to the one whose router claims it.

Routers are asked about each request that names the general model, or none. Its last message of a user
decides, so what follows a tool's result goes where the request went. Who answers, and why, is in the answer's
header, as x-tinygpt-route: "model=sql; reason=claimed; label=query; p=0.934; threshold=0.7". Reasons:
claimed; below-threshold; not-claimed (the likeliest class is no route's); too-long (claimed, but the whole
conversation has no room in the specialist's context); no-request (no message of a user); none-armed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from tinygpt.core.errors import BusyError
from tinygpt.serve.job import Chat
from tinygpt.serve.trace import CURRENT

Router = Callable[[str], Sequence[tuple[str, float]]]  # classes with probabilities, the likeliest first


@dataclass(frozen=True, kw_only=True)
class Route:
    """A specialist, and what it claims: requests of these classes of a router, from this probability on."""

    model: str
    router: Router
    labels: frozenset[str]
    threshold: float


class Routes:
    """The specialists beside the `general` model; the likeliest of several claims counts. call: has a router
    asked where the device may be used. resolve: the full name of a model that is asked for."""

    def __init__(
        self,
        general: str,
        routes: Sequence[Route],
        call: Callable[[Callable[[], Any]], Future[Any]],
        resolve: Callable[[str], str],
    ) -> None:
        self.general, self.routes = general, list(routes)
        self._call, self._resolve = call, resolve

    async def send(self, job: Chat, fits: Callable[[Chat], Awaitable[bool]]) -> Chat:
        """The job, at the model that is to do it. fits: whether the model of a job has room for it."""
        if self._resolve(job.model) != self.general:
            return job
        said = [str(m.get("content") or "") for m in job.messages if m.get("role") == "user"]
        if not self.routes:
            return self._sent(job, self.general, reason="none-armed")
        if not said or not said[-1].strip():
            return self._sent(job, self.general, reason="no-request")
        try:
            told = await asyncio.wrap_future(self._call(lambda: self._asked(said[-1])))
        except RuntimeError as error:  # the device's thread has ended
            raise BusyError("the server is shutting down", hint="try again later") from error
        claims = [one for one in told if one[1] in one[0].labels]
        claimed = [one for one in claims if one[2] >= one[0].threshold]
        route, label, p = max(claimed or claims or told, key=lambda one: one[2])
        if not claims:
            return self._sent(job, self.general, reason="not-claimed", label=label, p=p)
        model, reason = self.general, "below-threshold"
        if claimed:
            good = route.model == self.general or await fits(replace(job, model=route.model))
            model, reason = (route.model, "claimed") if good else (self.general, "too-long")
        return self._sent(job, model, reason=reason, label=label, p=p, threshold=route.threshold)

    def _asked(self, request: str) -> list[tuple[Route, str, float]]:
        """Each route with the likeliest class of its router; one that several have is asked once."""
        found: dict[int, tuple[str, float]] = {}
        for route in self.routes:
            if id(route.router) not in found:
                found[id(route.router)] = route.router(request)[0]
        return [(route, *found[id(route.router)]) for route in self.routes]

    def _sent(self, job: Chat, model: str, **facts: Any) -> Chat:
        if (record := CURRENT.get()) is not None:
            told = {"model": model, **facts}
            record.decision = "; ".join(f"{name}={_shown(value)}" for name, value in told.items())
        return replace(job, model=model)


def _shown(value: Any) -> str:
    """A value as a header can hold it."""
    return f"{value:.3g}" if isinstance(value, float) else quote(str(value), safe="+-_./:@ ")
