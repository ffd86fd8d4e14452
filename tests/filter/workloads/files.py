"""Files, permissions, links, FIFOs, locks, mmap, memfd, tempfile, shutil, zip and tar in Python."""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile

root = tempfile.mkdtemp()
os.chdir(root)
with open("a", "w+b") as file:
    file.write(b"x" * 5000)
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    os.fsync(file.fileno())
    os.posix_fallocate(file.fileno(), 0, 8000)
    with mmap.mmap(file.fileno(), 0) as view:
        view[0] = 65
os.chmod("a", 0o1640)
os.link("a", "b")
os.symlink("a", "c")
os.mkfifo("fifo")
os.mknod("plain", 0o600 | stat.S_IFREG)
os.utime("a", ns=(10**18, 10**18))
os.mkdir("d")
shutil.copytree(root, root + ".copy", ignore=shutil.ignore_patterns("fifo"), symlinks=True)
shutil.copy2("a", "d/a")
os.replace("d/a", "d/b")
fd = os.memfd_create("data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.write(fd, b"data")
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
for mode in (0o4755, 0o2755, 0o6000):
    try:
        os.chmod("a", mode)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    else:
        raise AssertionError(oct(mode))
try:
    os.open("set-id", os.O_CREAT | os.O_WRONLY, 0o4755)
except PermissionError:
    assert not os.path.exists("set-id")
else:
    raise AssertionError("O_CREAT with a set-id mode")
with tarfile.open("t.tar.gz", "w:gz") as tar:
    tar.add("d")
with tarfile.open("t.tar.gz") as tar:
    tar.extractall("out", filter="data")
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w") as archive:
    archive.write("a")
os.listxattr("a")
os.statvfs(".")
os.sched_getaffinity(0)
os.copy_file_range(os.open("a", os.O_RDONLY), os.open("z", os.O_CREAT | os.O_WRONLY, 0o600), 10)
shutil.rmtree(root + ".copy")
shutil.rmtree(root)
