"""The families of the house: where each is, its verb, and how a person chooses one of its techniques."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tinygpt.core.family import Family


@dataclass(frozen=True)
class Kind:
    """A family as people meet it."""

    package: str
    verb: str
    option: str = ""
    """The setting that picks a technique; "*": each is a flag of its own; "": the command picks it."""
    cites: bool = True  # its files name a paper and what differs from it

    @property
    def name(self) -> str:
        return self.package.removeprefix("tinygpt.")

    @property
    def family(self) -> Family:
        return Family(self.package, verb=self.verb)

    @property
    def called(self) -> tuple[str, str, str]:
        """What a person may call the family: "train.optim", "optim" or "optimizer"."""
        return self.name, self.family.kind, self.family.noun

    @property
    def title(self) -> str:
        """Line 1 of the package."""
        with self.family.folder.joinpath("__init__.py").open(encoding="utf-8") as file:
            return file.readline().strip('". \n')

    def choose(self, name: str) -> str:
        """What to type to get a technique; "" when the command picks it."""
        if self.option == "*":  # the first knob of a sampling rule, which is named like it or begins so
            from tinygpt.infer.config import SampleConfig

            knobs = [f.name for f in dataclasses.fields(SampleConfig)]
            knob = next((k for k in knobs if k == name or k.startswith(f"{name}_")), name)
            return f"--{knob.replace('_', '-')} VALUE"
        setting = (
            f"--set {self.option}={name}"
            if "." in self.option
            else f"--{self.option.replace('_', '-')} {name}"
        )
        return setting if self.option else ""


# Every family of the house, in the order of the layers. A house test finds a family that is missing here, and
# holds verbs and options against the code.
KINDS = (
    Kind("tinygpt.model.attention", "build", "model.attention"),
    Kind("tinygpt.model.mlp", "build", "model.mlp"),
    Kind("tinygpt.model.position", "build", "model.position"),
    Kind("tinygpt.model.norm", "build", "model.norm"),
    Kind("tinygpt.model.residual", "build", "model.residual"),
    Kind("tinygpt.model.depth", "build", "model.depth"),
    Kind("tinygpt.model.head", "build", "model.head"),
    Kind("tinygpt.model.arch", "read"),
    Kind("tinygpt.data.tokenizer", "load", cites=False),
    Kind("tinygpt.data.template", "render", "template", cites=False),
    Kind("tinygpt.data.source", "build", cites=False),
    Kind("tinygpt.data.world", "check", cites=False),
    Kind("tinygpt.data.traces", "read", "format", cites=False),
    Kind("tinygpt.data.pii", "find", cites=False),
    Kind("tinygpt.data.stage", "build", cites=False),
    Kind("tinygpt.train.objective", "build"),
    Kind("tinygpt.train.preference", "losses", "loss_type"),
    Kind("tinygpt.train.optim", "build", "optimizer"),
    Kind("tinygpt.train.schedule", "at", "schedule"),
    Kind("tinygpt.infer.sample", "apply", "*"),
    Kind("tinygpt.infer.speculate", "build"),
    Kind("tinygpt.infer.constrain", "compile", cites=False),
    Kind("tinygpt.peft", "wrap", "adapter"),
    Kind("tinygpt.merge", "combine", "method"),
    Kind("tinygpt.distill.divergence", "losses", "loss"),
    Kind("tinygpt.distill.hint", "build", "hint"),
    Kind("tinygpt.eval.reward", "score", cites=False),
    Kind("tinygpt.eval.suites", "score", cites=False),
    Kind("tinygpt.eval.verifier", "build", cites=False),
    Kind("tinygpt.agent.tools", "build", cites=False),
    Kind("tinygpt.agent.builtin", "call", cites=False),
)
