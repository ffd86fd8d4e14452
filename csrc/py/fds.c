/* fds.c - pipes of a job, as the host looks at them. */
#include "module.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* read(2) that does not wait where poll(2) saw something: a job that holds the pipe's
 * other end may open it for reading (/proc/self/fd, where the host is of its user) and
 * take what was seen. Terminals, and pipes before Linux 6.4, know no RWF_NOWAIT; what a
 * terminal's master was seen to have nobody else can take. Bytes, or -errno. */
ssize_t sbx_py_read_now(int fd, char *buf, size_t n)
{
    struct iovec iov = {buf, n};
    ssize_t got = syscall(SYS_preadv2, fd, &iov, 1, -1L, -1L, RWF_NOWAIT);

    if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EPERM))
        got = read(fd, buf, n);
    return got < 0 ? -errno : got;
}

/* Read what is in a pipe now, without waiting, as bytes; NULL with an exception on
 * failure. */
PyObject *sbx_py_drain(int fd, char *buf)
{
    PyObject *all = PyBytes_FromStringAndSize("", 0);
    struct pollfd p = {fd, POLLIN, 0};

    for (int i = 0; all && i < 64 && poll(&p, 1, 0) > 0 && (p.revents & POLLIN); i++) {
        ssize_t n = sbx_py_read_now(fd, buf, SBX_PY_READ_SIZE);
        if (n <= 0)
            break;
        PyObject *part = PyBytes_FromStringAndSize(buf, n);
        PyObject *sum = part ? PySequence_Concat(all, part) : NULL;
        Py_XDECREF(part);
        Py_DECREF(all);
        all = sum;
    }
    return all;
}

PyDoc_STRVAR(drain_doc, "drain(fd) -> bytes\n\nWhat is in a pipe now, without waiting; "
                        "4 MiB at most.");

static PyObject *py_drain(PyObject *self, PyObject *args)
{
    int fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    char *buf = PyMem_Malloc(SBX_PY_READ_SIZE);
    PyObject *all = buf ? sbx_py_drain(fd, buf) : PyErr_NoMemory();
    PyMem_Free(buf);
    return all;
}

PyDoc_STRVAR(readable_doc, "readable(fd) -> bool\n\nWhether a read would not wait.");

static PyObject *py_readable(PyObject *self, PyObject *args)
{
    struct pollfd p = {-1, POLLIN, 0};

    (void)self;
    if (!PyArg_ParseTuple(args, "i", &p.fd))
        return NULL;
    return PyBool_FromLong(poll(&p, 1, 0) > 0);
}

PyMethodDef sbx_py_fds[] = {
    {"drain", py_drain, METH_VARARGS, drain_doc},
    {"readable", py_readable, METH_VARARGS, readable_doc},
    {NULL, NULL, 0, NULL},
};
