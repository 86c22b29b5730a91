"""Limits of open files: ours are raised, what we start has those that we found."""

import os
import resource
import subprocess
import sys

from devmesh.open_files import as_found

RAISING = """
import resource, subprocess, sys
from devmesh import open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
open_files.allow_many()
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
before = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
open_files.as_found(child.pid)
print(resource.getrlimit(resource.RLIMIT_NOFILE) == before == (hard, hard), resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (256, hard))
child.communicate()
"""


def test_a_process_of_ours_may_have_many_and_what_it_starts_as_many_as_it_found():
    ran = subprocess.run([sys.executable, "-c", RAISING], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]


def test_who_has_ended_needs_no_limit():
    child = subprocess.Popen(["true"])
    child.wait()
    as_found(child.pid)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)
