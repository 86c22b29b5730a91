"""Processes are known by pid and start time, and stopped as they are known."""

import os
import resource
import signal
import socket
import subprocess
import sys

import pytest

from devmesh.open_files import allow_many, found
from devmesh.runtimes.processes import is_same, owner_of_port, port_in_use, start_time, stop_all

SLEEPER = "import signal; print('on', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def started():
    processes = []

    def start(program):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_is_the_same_only_with_its_start_time():
    mine = start_time(os.getpid())
    assert mine is not None
    assert is_same(os.getpid(), mine)
    assert not is_same(os.getpid(), mine + 1)
    assert not is_same(os.getpid(), None)


def test_a_zombie_is_no_process(started):
    process = started(SLEEPER)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(process.pid) is None


@pytest.mark.parametrize(("program", "number"), [(SLEEPER, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_what_does_not_end_at_a_word_is_killed(started, program, number):
    process = started(program)
    stop_all([(process.pid, start_time(process.pid))], grace=0.2)
    assert process.wait(60) == -number


def test_ends_are_awaited_by_who_has_a_thousand_files_open(started):
    process = started(SLEEPER)
    _, hard = found()
    if hard < 1100:
        pytest.skip(f"only {hard} files may be open")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_many()
    held = [os.dup(0) for _ in range(1030)]
    try:
        stop_all([(process.pid, start_time(process.pid))], grace=60)
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert process.wait(60) == -signal.SIGTERM


def test_a_reused_pid_is_left_alone(started):
    process = started(SLEEPER)
    stop_all([(process.pid, start_time(process.pid) + 1)], grace=0.1)
    assert process.poll() is None


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_the_owner_of_a_port_is_found_at_every_address_that_is_in_the_way(address):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.bind((address, 0))
        sock.listen()
        assert f"(pid {os.getpid()})" in owner_of_port("127.0.0.1", sock.getsockname()[1])


def test_a_port_in_use_names_its_owner():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert f"(pid {os.getpid()})" in owner_of_port("127.0.0.1", port)
        assert owner_of_port("127.0.0.2", port) == "another process", "who listens elsewhere is in nobody's way"
        error = port_in_use("127.0.0.1", port, "published by web")
    assert error.message.startswith(f"127.0.0.1:{port} (published by web) is in use by ")
    assert error.hint
