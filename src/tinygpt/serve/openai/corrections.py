"""Corrections: what a person changed in an answer is kept for the next training."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tinygpt.data import corrections
from tinygpt.serve.fields import Fields
from tinygpt.serve.job import Desk
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai.answers import reply
from tinygpt.serve.openai.errors import error

if TYPE_CHECKING:
    from fastapi import Request, Response

DOCUMENT = dict.fromkeys(corrections.FIELDS, "string")


async def answer(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """Keep a correction; the reply has its id."""
    kept = settings.corrections
    if kept is None:
        return error(404, "this server keeps no corrections: it was started without --corrections-dir")
    given = {name: text for name in f.data if (text := f.text(name)) is not None}
    return reply({"ok": True, "id": await asyncio.to_thread(kept.add, given)})
