"""Programs that want out of the sandbox stay in; programs that want a pass they have not earned get none."""

from __future__ import annotations

import compileall
import gzip
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cheats
import escapes
from tinygpt.core.errors import SandboxError
from tinygpt.core.sandbox import run as sandbox
from tinygpt.core.sandbox.judge import definitions, judge
from tinygpt.core.sandbox.limits import Limits
from tinygpt.core.sandbox.run import run

ROOT = Path(__file__).resolve().parents[2]
SHORT = Limits(seconds=8, cpu_seconds=2)
NOBODY = 65534


@pytest.fixture(scope="module", autouse=True)
def walls() -> None:
    """These tests need the sandbox; where it refuses they are skipped, but not in CI."""
    try:
        sandbox.check()
    except SandboxError as error:
        if os.environ.get("TINYGPT_REQUIRE_PARITY") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def here() -> Iterator[dict[str, Any]]:
    """What there is to reach outside: a secret, a folder, sockets that listen, another process."""
    folder = Path(tempfile.mkdtemp(prefix="outside-"))
    folder.chmod(0o777)  # so that nothing but the sandbox keeps another user out of it
    (folder / "secret").write_text("secret")
    shutil.copytree(ROOT / "src/tinygpt/core", folder / "src/tinygpt/core", ignore=lambda *_: ["__pycache__"])
    shutil.copy(ROOT / "src/tinygpt/__init__.py", folder / "src/tinygpt")
    shutil.copy(escapes.__file__, folder)
    compileall.compile_dir(folder / "src", quiet=1)  # another user cannot, and would do so at every run
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    victim = subprocess.Popen(command, stdin=subprocess.PIPE, env={"PLANTED": "1"})
    name = f"tinygpt-{os.getpid()}"
    listening = [
        socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    ]  # fmt: skip
    tcp, udp, unix, abstract, datagram = listening
    udp.bind(("127.0.0.1", 0))
    unix.bind(str(folder / "socket"))
    abstract.bind(f"\0{name}")
    datagram.bind(f"\0{name}-d")
    for one in (unix, abstract):
        one.listen()
    (folder / "socket").chmod(0o777)
    yield {
        "secret": str(folder / "secret"), "folder": str(folder), "source": str(folder / "escapes.py"),
        "victim": victim.pid, "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1],
        "unix": str(folder / "socket"), "abstract": name, "datagram": f"{name}-d",
    }  # fmt: skip
    for one in listening:
        one.close()
    assert victim.poll() is None, "a program has ended a process outside"
    victim.kill()
    victim.wait()
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", escapes.ESCAPES)
def test_no_way_out(name: str, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    with open(here["secret"], "rb") as file:
        os.set_inheritable(file.fileno(), True)
        outcome = run(escapes.program(name, here))
    assert "OUT" not in outcome.stdout and "SyntaxError" not in outcome.stderr
    assert not {"NameError", "AttributeError", "TypeError"} & set(outcome.stderr.replace(":", " ").split())
    assert not (Path(here["folder"]) / "new").exists()


def test_no_way_out_for_another_user(here: dict[str, Any]) -> None:
    """The same by an ordinary user: by nobody, where root runs the tests."""
    settings = Path(here["folder"]) / "here.json"
    settings.write_text(json.dumps(here))
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    path = {"PYTHONPATH": f"{here['folder']}/src", "PLANTED": "secret"}
    command = [_python(user), f"{here['folder']}/escapes.py", str(settings)]
    done = subprocess.run(command, env=path, capture_output=True, text=True, cwd="/", **user)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == len(escapes.ESCAPES) >= 30
    assert [name for name, (_, stdout, _) in results.items() if "OUT" in stdout] == []


def _python(user: dict[str, Any]) -> str:
    """A Python that this user may run: an interpreter in root's home is root's alone."""
    versions = ["python3", *(f"python3.{n}" for n in range(11, 16))]
    for path in (
        sys.executable,
        *(f"{folder}/{v}" for folder in ("/usr/bin", "/usr/local/bin") for v in versions),
    ):
        test = [path, "-c", "import sys, ctypes; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(test, capture_output=True, cwd="/", **user).returncode == 0:
                return path
        except OSError:
            continue
    pytest.skip("no Python 3.11 that an ordinary user may run")


@pytest.mark.parametrize(
    "name",
    ["passwd", "secret", "home", "repository", "symlink", "tcp", "udp", "listen", "unix socket",
     "abstract socket", "datagram pair", "signal", "environments", "descriptors", "memory of the parent",
     "execute", "shell", "memory file", "root"],
)  # fmt: skip
def test_without_the_sandbox_it_gets_out(name: str, here: dict[str, Any]) -> None:
    """The attempts are real ones: those that do no harm succeed where nothing holds them."""
    outcome = run(escapes.program(name, here), unsafe=True)
    assert "OUT" in outcome.stdout and outcome.unsafe, outcome.stderr


@pytest.mark.skipif(platform.system() != "Linux", reason="looks into /proc")
def test_no_daemon_outlives_its_run() -> None:
    name = f"left{os.getpid() % 10000000}"
    program = f"""
import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        ctypes.CDLL(None).prctl(15, b"{name}", 0, 0, 0)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(0.2)
print("started")
"""
    outcome = run(program)
    assert outcome.ok and outcome.stdout == "started\n"
    assert name not in _names()
    stopped = run(program + "\nwhile True: time.sleep(1)\n", limits=Limits(seconds=1))
    assert stopped.verdict == "time" and name not in _names()


def _names() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found.add(path.read_text().strip())
        except OSError:
            continue
    return found


BOMBS = {
    "fork": ("import os\nwhile True: os.fork()", "processes"),
    "fork, quietly": (
        "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(9)", "processes",
    ),
    "threads": (
        "import threading, time\n"
        "for i in range(999): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "processes",
    ),
    "memory": ("x = bytearray(1 << 40)", "memory"),
    "memory, bit by bit": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory"),
    "memory of many": (
        "import os, time\nfor i in range(7):\n    if os.fork() == 0: break\n"
        "x = bytearray(60 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(9)", "memory",
    ),
    "one file": ("f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 16))", "disk"),
    "files": ("for i in range(99): open(str(i), 'wb').write(bytes(1 << 18))", "disk"),
    "names": ("for i in range(99999): open(str(i), 'w')", "disk"),
    "output": ("while True: print('x' * 999)", "output"),
    "errors": ("import sys\nwhile True: sys.stderr.write('x' * 999)", "output"),
    "work": ("while True: pass", "cpu"),
    "work that will not end": (
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True: pass", "cpu",
    ),
    "sleep": ("import time\nwhile True:\n    try: time.sleep(99)\n    except BaseException: pass", "time"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_every_limit_has_its_verdict(name: str) -> None:
    source, verdict = BOMBS[name]
    seconds = (
        4 if name in ("sleep", "fork, quietly") else 60
    )  # the others end by themselves, if late when busy
    limits = Limits(
        seconds=seconds,
        cpu_seconds=1,
        memory_bytes=200 << 20,
        output_bytes=9999,
        processes=8,
        file_bytes=1 << 20,
    )
    outcome = run(source, limits=limits)
    assert outcome.verdict == verdict, outcome
    assert len(outcome.stdout + outcome.stderr) <= 9999


WITHOUT = """
import errno, struct, sys
from tinygpt.core.errors import SandboxError
from tinygpt.core.sandbox import kernel, seccomp
from tinygpt.core.sandbox.run import run
kernel.prctl("", kernel.PR_SET_NO_NEW_PRIVS, 1)
column = ("x86_64", "aarch64").index(kernel.machine())
numbers, argument, value = WHICH
code = [(0x20, 0, 0, 0), (0x15, 0, 3, numbers[column]), (0x20, 0, 0, 16 + 8 * argument)]
code += [(0x45, 0, 1, value), (0x06, 0, 0, 0x50000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
seccomp.install(b"".join(struct.pack("=HBBI", *one) for one in code))
try:
    run("print('ran')")
except SandboxError as error:
    print(error)
"""
USER = ((272, 97), 0, 0x10000000)


@pytest.mark.parametrize(
    ("which", "named"),
    [
        (USER, "namespaces (control group, host name, message queue, user, process, network)"),
        (((272, 97), 0, 0x20000), "namespace (mount)"),
        (((165, 40), 3, 0xFFFFFFFF), "mount none at /"),
        (((155, 41), 0, 0xFFFFFFFF), "pivot_root"),
        (((442, 442), 0, 0xFFFFFFFF), "mount_setattr"),
        (((444, 444), 2, 1), "Landlock"),
        (((446, 446), 0, 0xFFFFFFFF), "Landlock"),
        (((157, 167), 0, 0x10), "seccomp"),
    ],
    ids=["namespaces", "mounts", "mount", "root", "read-only", "Landlock", "its rules", "seccomp"],
)
def test_without_a_piece_it_refuses(which: object, named: str) -> None:
    """The piece is taken away by a filter around the whole test, as an older or stricter kernel would."""
    source = WITHOUT.replace("WHICH", repr(which))
    if (
        named == "seccomp"
    ):  # the option of prctl is 22: bits 16 + 4 + 2, and 4 alone is in no other that is used
        source = source.replace("0x45, 0, 1", "0x15, 0, 1").replace(repr(which), repr((which[0], 0, 22)))  # type: ignore[index]
        source = source.replace('kernel.prctl(""', "kernel.prctl('no_new_privs'")
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.stdout.startswith(f"the sandbox is not whole: {named}"), done.stdout + done.stderr
    assert "--unsafe-no-sandbox" in done.stdout and "ran" not in done.stdout.splitlines()


@pytest.mark.parametrize("name", cheats.CHEATS)
def test_no_cheat_passes(name: str) -> None:
    outcome = judge(f"{cheats.WRONG}\n{cheats.CHEATS[name]}", cheats.TESTS, limits=SHORT)
    assert not outcome.ok, outcome


def test_an_honest_program_passes_and_a_wrong_one_fails() -> None:
    assert judge(cheats.HONEST, cheats.TESTS).ok
    wrong = judge(cheats.WRONG, cheats.TESTS)
    assert (wrong.verdict, wrong.message) == ("failed", "assert add(1, 2) == 3: AssertionError")


@pytest.mark.parametrize("name", cheats.FOOLS)
def test_the_cheats_fool_a_shared_interpreter(name: str) -> None:
    program = f"{cheats.WRONG}\n{cheats.CHEATS[name]}\n{cheats.TESTS}"
    assert run(program, limits=SHORT).ok


@pytest.mark.wide
def test_reference_solutions_pass_three_times() -> None:
    path = os.environ.get("TINYGPT_HUMANEVAL", str(ROOT.parent / "shared" / "data" / "HumanEval.jsonl.gz"))
    if not Path(path).is_file():
        pytest.skip("HumanEval.jsonl.gz is not here (TINYGPT_HUMANEVAL names it)")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        tasks = [json.loads(line) for line in file]

    def one(task: dict[str, str]) -> str:
        name = task["entry_point"]
        helpers = definitions(task["prompt"], name)
        source = task["prompt"] + task["canonical_solution"]
        return judge(source, f"{task['test']}\ncheck({name})\n", prelude=helpers).verdict

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert list(pool.map(one, tasks * 3)) == ["ok"] * 164 * 3
