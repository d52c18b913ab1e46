"""Social security numbers of the United States: three, two and four digits of which none is all zeros.

The first three are not 666 nor from 900 on, which are never given out. With dashes a number stands for
itself, unless it is said to be a part's or an order's; with spaces, or run together, the words before it must
speak of social security or tax. Numbers of other countries are not looked for.

Paper: Social Security Administration, "Social Security Number Randomization", 2011.
"""

from __future__ import annotations

import re

from tinygpt.data.pii._near import before, is_thing, says

_FORM = re.compile(r"(?<![\w-])(?<!\d[.,])(\d{3})([-\u2013 ]?)(\d{2})\2(\d{4})(?![\w]|[-\u2013.,]\d)")
_SAYS = says(
    r"ssns?|social security|social insurance|soc(?:ial)?\.? sec|tax ?payer|tax id|tin|itin|w-?[29]|ss ?#"
)
# Printed in advertisements, and void since.
_SHOWN = ("078051120", "219099999", "457555462")


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every number, in order."""
    found: list[tuple[int, int]] = []
    for one in _FORM.finditer(text):
        area, mark, group, serial = one.groups()
        if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000":
            continue
        said = _SAYS.search(before(text, one.start())) is not None
        plain = mark not in ("", " ") and not is_thing(text, one.start())
        if (said or plain) and area + group + serial not in _SHOWN:
            found.append(one.span())
    return found
