"""A command on a terminal, at which somebody types."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

from e2e.shell import Done


class Person:
    """A process on a terminal of its own, in which somebody types."""

    def __init__(self, *given: object) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "tinygpt", *map(str, given)]
        self.process = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
        os.close(theirs)
        self.seen = ""

    def sees(self, text: str) -> None:
        while text not in self.seen:
            read = os.read(self._ours, 4096).decode(errors="replace")
            assert read, f"it ended: {self.seen}"
            self.seen += read

    def types(self, text: str) -> None:
        self.seen = ""
        os.write(self._ours, f"{text}\n".encode())

    def ended_after(self, text: str) -> Done:
        """Types a last line; what was asked before is worked on first."""
        os.write(self._ours, f"{text}\n".encode())
        return self.ended()

    def ended(self) -> Done:
        """Drained on a thread, or a full terminal would hold the process up."""
        threading.Thread(target=self._drain, daemon=True).start()
        assert self.process.stdout is not None
        out = self.process.stdout.read().decode()
        self.process.stdout.close()
        return Done(self.process.wait(60), out, self.seen)

    def _drain(self) -> None:
        try:
            while read := os.read(self._ours, 4096):
                self.seen += read.decode(errors="replace")
        except OSError:  # the terminal has gone with its process
            os.close(self._ours)
