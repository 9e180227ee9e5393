import os
import signal
import threading
import time
from pathlib import Path

import pytest

from logitcask.teacher.text.bounded_process import BoundedProcess, BoundExceededError, CallFailedError


def perform(what: str) -> object:
    if what == "loop":
        while True:
            pass
    if what == "one operation":
        return len(str(7 ** (10**8)))
    if what == "memory":
        return len("x" * 10**10)
    if what == "doubling":
        text = "x"
        while True:
            text += text
    if what == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(0)
    if what == "error":
        raise KeyError("content")
    if what == "recursion":
        return perform(what)
    return what, os.getpid()


@pytest.fixture
def process():
    return BoundedProcess(perform, cpu_seconds=0.3, memory_bytes=200_000_000)


@pytest.mark.parametrize("what", ["loop", "one operation", "memory", "doubling", "kill", "exit"])
def test_a_call_beyond_its_bound_is_ended_and_the_next_call_works(process, what):
    before = process.call("fine")
    start = time.monotonic()
    with pytest.raises(BoundExceededError, match=r"more than 0\.3 s or 200 MB"):
        process.call(what)
    assert time.monotonic() - start < 8
    after = process.call("fine")
    assert after[0] == "fine"
    assert after[1] != before[1]


@pytest.mark.parametrize(("what", "shown"), [("error", "KeyError: 'content'"), ("recursion", "RecursionError")])
def test_an_error_is_reported_and_the_child_stays(process, what, shown):
    child = process.call("fine")[1]
    with pytest.raises(CallFailedError, match=shown):
        process.call(what)
    assert process.call("fine") == ("fine", child)


def test_calls_run_in_one_child_from_any_thread(process):
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(process.call("fine"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert answers[0] != ("fine", os.getpid())


def test_the_child_ends_with_its_owner():
    process = BoundedProcess(perform, cpu_seconds=1, memory_bytes=100_000_000)
    other = BoundedProcess(perform, cpu_seconds=1, memory_bytes=100_000_000)
    child, _ = process.call("fine")[1], other.call("fine")
    del process
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_the_child_ends_when_its_parent_is_killed():
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        process, other = (BoundedProcess(perform, cpu_seconds=1, memory_bytes=10**8) for _ in range(2))
        os.write(write, f"{process.call('fine')[1]} {other.call('fine')[1]}".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    for child in map(int, os.read(read, 100).split()):
        deadline = time.monotonic() + 5
        while is_running(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def is_running(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
