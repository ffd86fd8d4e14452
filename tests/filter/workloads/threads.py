"""Threads, signals, timers, events, resource limits, select, random, time, uuid, platform."""

from __future__ import annotations

import os
import platform
import resource
import secrets
import select
import signal
import sqlite3
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

with ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda x: x + 1, range(1000))) == 500500
hits: list[int] = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
deadline = time.monotonic() + 5
while not hits and time.monotonic() < deadline:
    time.sleep(0.005)
assert hits
signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
os.kill(os.getpid(), signal.SIGALRM)
read, write = os.pipe2(os.O_CLOEXEC)
os.set_blocking(read, False)
with select.epoll() as poll:
    poll.register(read, select.EPOLLIN)
    os.write(write, b"x")
    assert poll.poll(1)
if hasattr(os, "eventfd"):
    os.eventfd_write(os.eventfd(0), 1)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
resource.getrusage(resource.RUSAGE_CHILDREN)
os.nice(1)
secrets.token_bytes(8)
uuid.uuid4()
platform.platform()
os.getloadavg() if os.path.exists("/proc/loadavg") else None
os.isatty(0)
os.get_terminal_size if sys.stdout.isatty() else None
with sqlite3.connect(":memory:") as db:
    db.execute("create table t(x)")
    db.executemany("insert into t values (?)", [(i,) for i in range(1000)])
    assert db.execute("select sum(x) from t").fetchone() == (499500,)
child = os.fork()
if child == 0:
    time.sleep(30)
os.kill(child, signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
