"""Talk with a model in the terminal: answers stream, history is kept, /reset forgets it, /quit ends.

Ctrl-C cuts an answer short. Without a terminal every line of stdin is one message.

Example:

    tinygpt chat specialists/file-ops-tiny
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._talk import talk
from tinygpt.runs.generate import ChatConfig

ALSO = {
    "adapter": "lora", "adapter_weight": "lora_weight", "sinks": "streaming_llm_sink",
    "window": "streaming_llm_window", "draft_model": "draft", "draft_tokens": "speculative_k",
}  # fmt: skip
main = from_config(ChatConfig, talk, arguments=("model",), also=ALSO, needs={"sinks": "window"})
