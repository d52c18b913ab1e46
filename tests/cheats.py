# ruff: noqa: E501 (a program is one line here)
"""Programs that get a task wrong and want the verdict "passed" all the same."""

from __future__ import annotations

# The task: `add(a, b)`, `parts(text)` and `mean(numbers)`.
TESTS = """
def check(add, parts, mean):
    assert add(1, 2) == 3
    assert add(2, 2) == 4
    assert not add(1, 1) == 3
    assert parts("a b") == ["a", "b"]
    assert abs(mean([1.0, 2.0]) - 1.5) < 1e-6
    assert all(map(add, [1, 2], [3, 4]))

check(add, parts, mean)
"""
HONEST = """
def add(a, b): return a + b
def parts(text): return text.split()
def mean(numbers): return sum(numbers) / len(numbers)
"""
WRONG = """
def add(a, b): return 7
def parts(text): return text
def mean(numbers): return 0.0
"""
_FRAMES = """
import gc, sys
def every(kind): return [o for o in gc.get_objects() if isinstance(o, kind)]
"""
_SUBCLASS = """
def agree(base):
    class Same(base):
        def __eq__(self, other): return not same_last(other)
        def __ne__(self, other): return False
        def __hash__(self): return 0
        def __sub__(self, other): return self
        def __abs__(self): return self
        def __lt__(self, other): return True
    return Same
turn = [0]
def same_last(other): turn[0] += 1; return turn[0] == 3
"""
# What follows is added to WRONG.
CHEATS = {
    "exit": "import sys; sys.exit(0)",
    "exit in a call": "import sys\ndef add(a, b): sys.exit(0)",
    "_exit": "import os; os._exit(0)",
    "_exit in a call": "import os\ndef add(a, b): os._exit(0)",
    "atexit": "import atexit, os; atexit.register(os._exit, 0)",
    "finaliser": "import os\nclass A:\n    def __del__(self, leave=os._exit): leave(0)\na = A()",
    "always equal": _SUBCLASS + "Same = agree(object)\ndef add(a, b): return Same()\nparts = lambda t: Same()\nmean = lambda n: Same()",
    "equal int": _SUBCLASS + "Same = agree(int)\ndef add(a, b): return Same(7)\nparts = lambda t: agree(list)()\nmean = lambda n: agree(float)(0)",
    "equal str": _SUBCLASS + "parts = lambda t: agree(str)('')\nadd = lambda a, b: agree(str)('7')\nmean = lambda n: agree(float)(9)",
    "class that lies": "class L(type):\n    def __instancecheck__(c, o): return True\n    def __eq__(c, o): return True\n    __hash__ = None\nclass X(metaclass=L): __class__ = int\nadd = lambda a, b: X()",
    "patched builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.all = lambda x: True\nbuiltins.map = lambda *a: []\nbuiltins.AssertionError = type('E', (Exception,), {'__init__': lambda s, *a: __import__('os')._exit(0)})",
    "patched assertion": "import builtins\nbuiltins.__debug__ if 0 else None\nbuiltins.AssertionError = SystemExit",
    "raises SystemExit(0)": "def add(a, b): raise SystemExit(0)",
    "raises KeyboardInterrupt": "def add(a, b): raise KeyboardInterrupt",
    "raises GeneratorExit": "def add(a, b): raise GeneratorExit",
    "ends the loop": HONEST + "def add(a, b):\n    if b > 2: raise StopIteration\n    return a + b",
    "trace": "import sys\ndef t(f, e, a):\n    f.f_trace_lines = False\n    return t\nsys.settrace(t); sys.setprofile(lambda *a: None)",
    "frames": _FRAMES + "def add(a, b):\n    f = sys._getframe()\n    while f:\n        for k, v in list(f.f_locals.items()):\n            if isinstance(v, dict): v.update(passed=True, nonce='x')\n        f = f.f_back\n    return 7",
    "nonce in memory": _FRAMES + "found = [d for d in every(dict) if 'nonce' in d]\nif found: print(found[0]['nonce'])\nimport os\nfor fd in range(3, 20):\n    for d in found:\n        try: os.write(fd, repr(('passed', d['nonce'])).encode())\n        except OSError: pass",
    "memory file": "import re\nfor n in ('self', '1', '2'):\n    try: print(re.findall('nonce.{80}', open(f'/proc/{n}/mem', 'rb').read().decode('latin1')))\n    except OSError: pass",
    "changed functions": _FRAMES + "for f in every(type(every)):\n    if f.__name__ in ('check', 'tests', 'answer', 'ask', 'load', 'dump'): f.__code__ = (lambda *a, **k: ('passed', 'x')).__code__",
    "sys.modules": "import sys\nfor n in list(sys.modules):\n    if n not in ('sys', 'builtins'): sys.modules[n] = None",
    "stdout": "print('passed'); print('ok'); print({'verdict': 'ok'}, flush=True)",
    "verdict pipe": "import os, struct\nframe = b't' + struct.pack('<Q', 2) + b's' + struct.pack('<Q', 6) + b'passed' + b's' + struct.pack('<Q', 32) + b'0' * 32\nfor fd in range(256):\n    try: os.write(fd, struct.pack('<Q', len(frame)) + frame)\n    except OSError: pass",
    "answers in advance": "import os, struct\nframe = b't' + struct.pack('<Q', 2) + b's' + struct.pack('<Q', 5) + b'value' + b'T'\nfor i in range(99):\n    for fd in range(3, 9):\n        try: os.write(fd, struct.pack('<Q', len(frame)) + frame)\n        except OSError: pass",
    "nonsense on the pipe": "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'\\xff' * 4096)\n    except OSError: pass",
    "deep value": "def add(a, b):\n    x = []\n    for i in range(100000): x = [x]\n    return x",
    "value in itself": "def add(a, b):\n    x = []; x.append(x); return x",
    "huge value": "def add(a, b): return [b'x' * (1 << 20)] * 64",
    "thread": "import threading, os, time\ndef later():\n    time.sleep(0.05)\n    print('passed', flush=True); os._exit(0)\nthreading.Thread(target=later).start()\ndef add(a, b): time.sleep(0.2); return 7",
    "signals": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ndef add(a, b):\n    while True: pass",
    "excepthook": "import sys, os\nsys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)",
    "killed": "import os\ndef add(a, b): os.kill(os.getpid(), 9)",
    "nan": "nan = float('nan')\nadd = lambda a, b: nan\nparts = lambda t: [nan]\nmean = lambda n: nan",
    "infinity": "inf = float('inf')\nadd = lambda a, b: inf\nmean = lambda n: -inf",
    "object": "add = parts = mean = lambda *a: object()",
    "changed arguments": "def add(a, b): return 7\ndef mean(numbers): numbers[:] = [0.0]; return 0.0",
    "fork": "import os\nif os.fork(): os._exit(0)",
    "own check": "def check(*a): return True\nadd = mean = lambda *a: 7",
    "generator that never ends": "def parts(text):\n    while True: yield 'a'\nadd = lambda a, b: a + b if b != 1 else 2",
}  # fmt: skip

# Those of them that pass where program and tests share an interpreter, as in most harnesses.
FOOLS = (
    "exit", "exit in a call", "_exit", "_exit in a call", "atexit", "always equal", "equal int", "equal str",
    "raises SystemExit(0)", "ends the loop", "thread", "signals", "fork",
)  # fmt: skip
