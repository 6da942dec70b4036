"""Worker processes: each part gets its result or is lost, in order, and no process stays."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from lift.workers import Lost, run_jobs

DEADLY, HANGING, LEAVING, SEGFAULT = 1000, 1001, 1002, 1003


def work(shared, parts):
    """Squares; some numbers do harm."""
    for part in parts:
        if part == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if part == HANGING:
            time.sleep(600)
        if part == LEAVING:
            os._exit(3)
        if part == SEGFAULT:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        yield shared, part**2


def expected(jobs, lost=None):
    return [[(lost or {}).get(part, (shared, part**2)) for part in parts] for shared, parts in jobs]


@pytest.fixture(autouse=True)
def nobody_left():
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("sizes", [[1] * 12, [8, 1, 3, 8, 2], [3]])
def test_results_are_those_of_this_process_in_order(workers, sizes):
    starts = np.cumsum([0, *sizes[:-1]])
    jobs = [
        (f"file {n}", tuple(range(start, start + size)))
        for n, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]
    assert list(run_jobs(work, jobs, workers)) == expected(jobs)


def test_nothing_to_do():
    assert list(run_jobs(work, [], 2)) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(
    "bad, cause",
    [
        (DEADLY, "died (SIGKILL)"),
        (LEAVING, "died (exit code 3)"),
        (SEGFAULT, "died (SIGSEGV)"),
        (HANGING, "timed out after 3 s"),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_only_the_part_that_does_harm_is_lost(workers, bad, cause, place):
    parts = [[8 * n + k for k in range(8)] for n in range(6)]
    parts[2][place] = bad
    jobs = [(n, tuple(row)) for n, row in enumerate(parts)]
    limit = 3.0 if bad == HANGING else 60.0  # a busy machine starts a process late
    assert list(run_jobs(work, jobs, workers, limit)) == expected(jobs, {bad: Lost(cause)})


def test_all_parts_may_be_bad():
    jobs = [(n, (DEADLY, LEAVING)) for n in range(4)]
    lost = {DEADLY: Lost("died (SIGKILL)"), LEAVING: Lost("died (exit code 3)")}
    assert list(run_jobs(work, jobs, 2)) == expected(jobs, lost)


def test_the_limit_is_that_of_a_part_and_does_not_count_while_the_parent_is_away():
    def slow(shared, parts):
        for part in parts:
            time.sleep(0.15)
            yield part

    jobs = [(None, (0, 1, 2, 3)), (None, (4, 5, 6, 7))]
    with closing(run_jobs(slow, jobs, 1, timeout=0.5)) as stream:
        first = next(stream)
        time.sleep(1)
        assert [first, *stream] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_kill_within_the_writing_of_a_result_touches_no_other():
    """As when memory runs out: one common pipe would then hold half of a message."""

    def heavy(shared, parts):
        for part in parts:
            if part == 3:
                threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGKILL)).start()
            yield np.full(50_000_000, part, np.uint8)

    results = [
        result for job in run_jobs(heavy, [(None, (n,)) for n in range(6)], 2) for result in job
    ]
    assert [n for n, result in enumerate(results) if not isinstance(result, Lost)] in (
        [0, 1, 2, 4, 5],
        [0, 1, 2, 3, 4, 5],
    )
    assert all(result[-1] == n for n, result in enumerate(results) if n != 3)


def test_a_process_that_is_killed_from_outside_costs_nothing(tmp_path):
    def once(shared, parts):
        for part in parts:
            try:
                (tmp_path / f"{part}").touch(exist_ok=part != 4)
                if part == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass  # the second time
            yield part

    assert list(run_jobs(once, [(None, (n, n + 1)) for n in range(0, 10, 2)], 2)) == [
        [n, n + 1] for n in range(0, 10, 2)
    ]


def test_few_jobs_are_on_their_way(tmp_path):
    def note(shared, parts):
        for part in parts:
            (tmp_path / str(part)).touch()
            yield part

    with closing(run_jobs(note, [(None, (n,)) for n in range(100)], 2)) as stream:
        assert next(stream) == [0]
        time.sleep(0.3)
        assert 1 <= len(list(tmp_path.iterdir())) <= 4 + 1


def test_a_result_that_cannot_be_sent_ends_its_process_only():
    def locks(shared, parts):
        for part in parts:
            yield threading.Lock() if part == 1 else part

    results = list(run_jobs(locks, [(None, (0,)), (None, (1,)), (None, (2,))], 1))
    assert results == [[0], [Lost("died (exit code 1)")], [2]]


def test_a_parent_with_threads_of_torch_and_of_its_own():
    """A fork in the midst of matrix products; the worker computes with torch too."""
    torch.set_num_threads(2)
    stop = threading.Event()

    def multiply():
        while not stop.is_set():
            torch.randn(300, 300) @ torch.randn(300, 300)

    def resize(shared, parts):
        for part in parts:
            x = torch.full((4, 3, 320, 240), part, dtype=torch.uint8)
            x = torch.nn.functional.interpolate(x, (64, 64), mode="bicubic", antialias=True)
            yield int(x.float().mean())

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        for _ in range(5):
            found = list(
                run_jobs(
                    resize,
                    [(None, (n,)) for n in range(8)],
                    2,
                    20,
                    lambda: torch.set_num_threads(1),
                )
            )
            assert found == [[n] for n in range(8)]
    finally:
        stop.set()
        thread.join()


def test_no_shared_memory_is_used():
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no /dev/shm here")

    def tell(shared, parts):
        for _ in parts:
            yield (
                np.zeros(10_000_000, np.uint8),
                {path.name for path in shm.iterdir()} - before,
                shared_maps() - inherited,
            )

    def shared_maps():
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {line[line.index("/dev/shm") :] for line in lines if "/dev/shm" in line}

    inherited = shared_maps()  # of other libraries in this process, which a fork keeps
    before = {path.name for path in shm.iterdir()}
    for ((array, files, mapped),) in run_jobs(tell, [(None, (n,)) for n in range(4)], 2):
        assert array.nbytes == 10_000_000 and not mapped
        assert not {name for name in files if name.startswith(("torch_", "psm_", "sem."))}


PARENT = """
import os, sys, time
from lift.workers import run_jobs
def work(shared, parts):
    for part in parts:
        os.write(1, f"worker {os.getpid()}\\n".encode())  # print may write a line in pieces
        time.sleep(600 if part else 0)
        yield part
for _ in run_jobs(work, [(None, (n,)) for n in range(8)], 3):
    pass
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "group", [True, False], ids=["as a terminal sends it", "to the parent alone"]
)
def test_an_interrupt_ends_all_within_a_second(group):
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + PARENT
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = {int(parent.stdout.readline().split()[1]) for _ in range(4)}
    began = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT) if group else parent.send_signal(signal.SIGINT)
    errors = parent.communicate()[1]
    assert time.monotonic() - began < 1, "what an interrupt is for"
    assert "KeyboardInterrupt" in errors and errors.count("Traceback") == 1
    assert len(workers) == 3 and not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_leave_when_their_parent_is_killed():
    code = PARENT.replace("time.sleep(600 if part else 0)", "time.sleep(0.2)")
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = {int(parent.stdout.readline().split()[1]) for _ in range(3)}
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))
