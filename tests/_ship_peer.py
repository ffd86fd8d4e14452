"""A stand-in for the job: a clean `python -I` that receives by pipe what `_ship` sends."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import agentsbx
from agentsbx import _ship

ROOT = str(Path(agentsbx.__file__).resolve().parent.parent)

CHILD = r"""
import os, struct, sys
sys.path.append(sys.argv[1])
site = sys.argv[2].split(os.pathsep)
sys.path.extend(p for p in site if p not in sys.path)
from agentsbx import _receive
names = ("logging", "random", "ssl", "cloudpickle", "pickle", "typing")
heavy = [m for m in names if m in sys.modules]
import pickle, traceback
def read(n):
    out = b""
    while len(out) < n:
        part = os.read(0, n - len(out))
        if not part: os._exit(0)
        out += part
    return out
def get():
    return pickle.loads(read(struct.unpack("=Q", read(8))[0]))
out = os.dup(1); os.dup2(2, 1)
def put(*message):
    data = pickle.dumps(message); data = struct.pack("=Q", len(data)) + data
    while data: data = data[os.write(out, data):]
def request(name):
    put("module", name)
    body, buffers = get()
    return body, [memoryview(b) for b in buffers]
receiver = _receive.Receiver()
receiver.install_importer(request)
try:
    blob, buffers = get()
    receiver.load_snapshot(blob, [memoryview(b) for b in buffers])
    while True:
        body, buffers = get()
        fn, args, kwargs = receiver.load_call(body, [memoryview(b) for b in buffers])
        put("value", fn(*args, **kwargs), heavy)
except BaseException as error:
    text = "".join(traceback.format_exception(error))
    put("error", type(error).__name__, str(error), text)
"""


class JobError(Exception):
    """What the job raised: type name, words."""


class Job:
    """One job with one snapshot."""

    def __init__(self, fn, **options):
        self.snapshot = fn if isinstance(fn, _ship.Snapshot) else _ship.take_snapshot(fn, **options)
        import site

        packages = [*site.getsitepackages(), *(p for p in sys.path if p.endswith("site-packages"))]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", CHILD, ROOT, ":".join(packages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self.put((self.snapshot.blob, [bytearray(b) for b in self.snapshot.buffers]))
        self.heavy: list[str] = []
        self.served: list[str] = []

    def put(self, message):
        data = pickle.dumps(message)
        self.process.stdin.write(struct.pack("=Q", len(data)) + data)
        self.process.stdin.flush()

    def get(self):
        (size,) = struct.unpack("=Q", self.process.stdout.read(8))
        return pickle.loads(self.process.stdout.read(size))

    def __call__(self, *args, **kwargs):
        stream = self.snapshot.begin_call(args, kwargs)
        self.served = stream.served
        # bytearray: what is mapped in a job is writable there.
        self.put((stream.body, [bytearray(b) for b in stream.buffers]))
        while True:
            kind, *rest = self.get()
            if kind == "module":
                body, buffers = stream.module_reply(rest[0])
                self.put((body, [bytearray(b) for b in buffers]))
            elif kind == "value":
                self.heavy = rest[1]
                return rest[0]
            else:
                raise JobError(rest[0], rest[1], rest[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


def call(fn, *args, **kwargs):
    """Run `fn(*args, **kwargs)` in a fresh job."""
    with Job(fn) as job:
        return job(*args, **kwargs)
