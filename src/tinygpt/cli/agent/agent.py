"""Have a model work with tools: it calls them, reads what they give, and goes on until it has an answer.

Requests are typed, or lines of stdin; --single works on one. What a call does beyond reading is asked for on
the terminal, or allowed with --yes. Ctrl-C ends a request, not the conversation.

Example:

    tinygpt agent runs/helper/final --tools tools.json --single "which files are larger than 1 MB?"
    tinygpt agent runs/helper/final --tools builtin:list_files,read_file,write_file --yes write
"""

from __future__ import annotations

from tinygpt.agent.tool import ASKED
from tinygpt.cli._agent import work
from tinygpt.cli._options import from_config
from tinygpt.runs._agent_settings import OVERFLOW, SEND, Config
from tinygpt.runs._worlds import WORLDS

ALSO = {
    "adapter": "lora", "adapter_weight": "lora_weight", "sinks": "streaming_llm_sink",
    "window": "streaming_llm_window", "draft_model": "draft", "draft_tokens": "speculative_k",
}  # fmt: skip
main = from_config(
    Config, work, arguments=("model",), also=ALSO, needs={"sinks": "window"},
    choices={"overflow": OVERFLOW, "yes": [*sorted(ASKED), SEND], "world": WORLDS.names()},
    spares={"endpoint": "model"},
)  # fmt: skip
