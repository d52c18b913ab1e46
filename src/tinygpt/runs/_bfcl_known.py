"""What is known of BFCL 2026.3.23: its categories, which need a network, and which references are wrong."""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.core.errors import ConfigError, unknown

NON_LIVE = (
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple",
    "irrelevance",
)  # fmt: skip
LIVE = (
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance",
    "live_relevance",
)  # fmt: skip
MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
MEMORY = ("memory_kv", "memory_vector", "memory_rec_sum")
WEB = ("web_search_base", "web_search_no_snippet")
SCORED = (*NON_LIVE, *LIVE, *MULTI_TURN, *MEMORY, *WEB)
EVERY = (*SCORED, "format_sensitivity")
NETWORK = {
    "memory_vector": "downloads an encoder, and needs torch, sentence-transformers and faiss",
    **dict.fromkeys(WEB, "asks a search engine, and needs SERPAPI_API_KEY"),
}
GROUPS = {
    "offline": tuple(c for c in SCORED if c not in NETWORK), "all": EVERY, "all_scoring": SCORED,
    "single_turn": (*NON_LIVE, *LIVE), "non_live": NON_LIVE, "live": LIVE, "multi_turn": MULTI_TURN,
    "memory": MEMORY, "web_search": WEB, "agentic": (*MEMORY, *WEB),
    "non_python": ("simple_java", "simple_javascript"),
    "python": (*(c for c in (*NON_LIVE, *LIVE) if "java" not in c),),
}  # fmt: skip
# Names of earlier versions, as the original's command had them.
EARLIER = {"simple": "simple_python", "java": "simple_java", "javascript": "simple_javascript",
           "relevance": "live_relevance"}  # fmt: skip
# The simulated back ends of multi-turn tasks.
CLASSES = (
    "GorillaFileSystem", "MathAPI", "MessageAPI", "TicketAPI", "TradingBot", "TravelAPI", "TwitterAPI",
    "VehicleControlAPI",
)  # fmt: skip
PROMPT_ONLY = ("format_sensitivity",)


def chosen(names: Sequence[str], *, native: bool) -> tuple[list[str], list[str]]:
    """The categories that names and groups of names ask for, in BFCL's order, and a sentence for each that a
    group holds and that is left out. One that is named itself and cannot be asked is a ConfigError."""
    wanted: set[str] = set()
    told: dict[str, str] = {}
    for given in names:
        name = EARLIER.get(given, given)
        if name not in GROUPS and name not in EVERY:
            raise unknown("category of BFCL", given, [*EVERY, *GROUPS])
        for category in GROUPS.get(name, (name,)):
            why = NETWORK.get(category, "")
            if native and category in PROMPT_ONLY:
                why = "is about prompts; ask for it with --mode prompt"
            if why and name == category:
                raise ConfigError(f"the category {category} {why}", hint="leave it out")
            if why:
                told[category] = f"left out: {category} {why}"
            else:
                wanted.add(category)
    if not wanted:
        raise ConfigError("no category is left to ask", hint="the offline ones: --tasks offline")
    return [c for c in EVERY if c in wanted], list(told.values())


# Questions whose reference answers, played back, fail BFCL's own scorer. Found by playing all references of
# the offline categories back; docs/bfcl.md says what is wrong with each.
KNOWN_BAD = frozenset(
    ("simple_java_36", "simple_java_64", "simple_java_65", "live_simple_106-63-0", "live_simple_112-68-0",
     "live_multiple_862-181-3", "live_multiple_964-207-0")
)  # fmt: skip
