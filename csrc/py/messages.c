/* messages.c - messages (base/wire.h) and frames (base/call.h) for Python: moving bytes
 * and fds. */
#include "module.h"

#include "../base/call.h"
#include "../base/io.h"
#include "../base/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { MAX_FDS = 1 + SBX_MAX_MOUNTS + 4, READ_SIZE = SBX_PY_READ_SIZE };

/* So long output waits for an answer that may follow at once. */
enum { QUIET_MS = 1 };

/* What wait_frame and exchange saw first: agentsbx._wire.Event. */
enum { TIME_OVER = 0, FRAME, ON_STDOUT, ON_STDERR, CLOSED, NOT_SENT };

static int fds_of(PyObject *seq, int *fds)
{
    Py_ssize_t n = PyTuple_Size(seq);

    if (n < 0)
        return -1;
    if (n > MAX_FDS) {
        PyErr_SetString(PyExc_ValueError, "too many file descriptors for one message");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        fds[i] = (int)PyLong_AsLong(PyTuple_GetItem(seq, i));
        if (fds[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return (int)n;
}

static PyObject *tuple_of_fds(const int *fds, unsigned n)
{
    PyObject *t = PyTuple_New((Py_ssize_t)n);

    for (unsigned i = 0; t && i < n; i++) {
        PyObject *v = PyLong_FromLong(fds[i]);
        if (!v || PyTuple_SetItem(t, (Py_ssize_t)i, v) < 0)
            Py_CLEAR(t);
    }
    if (!t)
        while (n)
            close(fds[--n]);
    return t;
}

PyDoc_STRVAR(
    send_doc,
    "send(sock, message: bytes, fds: tuple[int, ...] = (), flags: int = 0) -> None\n\n"
    "Send one message with descriptors. OSError on failure.");

static PyObject *py_send(PyObject *self, PyObject *args)
{
    int sock, flags = 0, fds[MAX_FDS], n = 0, r;
    PyObject *seq = NULL;
    Py_buffer buf;

    (void)self;
    if (!PyArg_ParseTuple(args, "iy*|O!i", &sock, &buf, &PyTuple_Type, &seq, &flags))
        return NULL;
    if (seq && (n = fds_of(seq, fds)) < 0) {
        PyBuffer_Release(&buf);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    r = sbx_send(sock, buf.buf, (size_t)buf.len, NULL, 0, fds, (unsigned)n, flags);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buf);
    if (r < 0)
        return sbx_py_errno(r);
    Py_RETURN_NONE;
}

/* Milliseconds until then for poll(2), rounded up; 0 = no end. */
static int left_ms(uint64_t until_ns)
{
    uint64_t now = sbx_now_ns();

    if (!until_ns)
        return -1;
    return now >= until_ns ? 0 : (int)((until_ns - now + 999999) / 1000000);
}

PyDoc_STRVAR(
    recv_doc,
    "recv(sock, max_bytes: int, max_fds: int = 0, timeout_ms: int = -1)\n"
    "-> tuple[bytes, Descriptors] | None\n\n"
    "Receive one message; b'' means that the peer closed, None that the time is over.\n"
    "Descriptors beyond max_fds are refused with EMSGSIZE; EMFILE: no number was "
    "left.");

static PyObject *py_recv(PyObject *self, PyObject *args)
{
    int sock, max_bytes, max_fds = 0, timeout = -1, fds[MAX_FDS], p;
    unsigned n_fds = 0;
    ssize_t n = 0;

    if (!PyArg_ParseTuple(args, "ii|ii", &sock, &max_bytes, &max_fds, &timeout))
        return NULL;
    if (max_bytes <= 0 || max_bytes > SBX_MAX_MSG || max_fds < 0 || max_fds > MAX_FDS) {
        PyErr_SetString(PyExc_ValueError, "max_bytes or max_fds out of range");
        return NULL;
    }
    char *buf = PyMem_Malloc((size_t)max_bytes);
    if (!buf)
        return PyErr_NoMemory();
    /* Never blocked in recvmsg: a signal's handler runs at once, and is no end of the
     * time. */
    uint64_t until = timeout > 0 ? sbx_now_ns() + (uint64_t)timeout * 1000000 : 0;
    do {
        Py_BEGIN_ALLOW_THREADS
        struct pollfd pfd = {sock, POLLIN, 0};
        n = sbx_recv(sock, buf, (size_t)max_bytes, fds, (unsigned)max_fds, &n_fds,
                     MSG_DONTWAIT);
        if (n == -EAGAIN && timeout != 0) {
            p = poll(&pfd, 1, left_ms(until));
            n = p < 0 ? -errno : p > 0 ? -EINTR : -EAGAIN;
        }
        Py_END_ALLOW_THREADS
    } while (n == -EINTR && PyErr_CheckSignals() == 0);
    if (n == -EAGAIN || n == -EINTR) {
        PyMem_Free(buf);
        if (n == -EINTR)
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *data = n < 0 ? sbx_py_errno(n) : PyBytes_FromStringAndSize(buf, n);
    PyMem_Free(buf);
    if (!data) {
        while (n >= 0 && n_fds)
            close(fds[--n_fds]);
        return NULL;
    }
    PyObject *got = sbx_py_own(self, fds, n_fds);
    PyObject *both = got ? PyTuple_Pack(2, data, got) : NULL;
    Py_XDECREF(got);
    Py_DECREF(data);
    return both;
}

/* SO_SNDTIMEO of the channel (the host's end has one), -1 = none. */
static int send_patience_ms(int chan)
{
    struct timeval t = {0};
    socklen_t n = sizeof t;

    if (getsockopt(chan, SOL_SOCKET, SO_SNDTIMEO, &t, &n) < 0 ||
        (!t.tv_sec && !t.tv_usec))
        return -1;
    return (int)(t.tv_sec * 1000 + t.tv_usec / 1000);
}

PyDoc_STRVAR(send_frame_doc, "send_frame(channel, kind: int, body: bytes, fds: "
                             "tuple[int, ...] = (), n_body: int = 0,\n"
                             "n_memfd: int = 0) -> None\n\nSend one frame. n_memfd != "
                             "0: the first fd is the memfd and "
                             "n_body bytes of it are the body.");

static PyObject *py_send_frame(PyObject *self, PyObject *args)
{
    int chan, kind, fds[MAX_FDS], n = 0, r;
    unsigned long long n_body = 0, n_memfd = 0;
    PyObject *seq = NULL;
    Py_buffer buf;

    (void)self;
    if (!PyArg_ParseTuple(args, "iiy*|O!KK", &chan, &kind, &buf, &PyTuple_Type, &seq,
                          &n_body, &n_memfd))
        return NULL;
    if ((seq && (n = fds_of(seq, fds)) < 0) || buf.len > SBX_FRAME_INLINE) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "frame body too long to go inline");
        PyBuffer_Release(&buf);
        return NULL;
    }
    struct sbx_frame head = {(uint32_t)kind, (uint32_t)buf.len, n_body, n_memfd};
    /* A job that does not read must not keep Ctrl-C from this thread: never blocked in
     * sendmsg. */
    do {
        Py_BEGIN_ALLOW_THREADS
        struct pollfd pfd = {chan, POLLOUT, 0};
        r = sbx_send(chan, &head, sizeof head, buf.buf, (size_t)buf.len, fds,
                     (unsigned)n, MSG_DONTWAIT);
        if (r == -EAGAIN) {
            int ready = poll(&pfd, 1, send_patience_ms(chan));
            r = ready < 0 ? -errno : ready ? -EINTR : -EAGAIN;
        }
        Py_END_ALLOW_THREADS
    } while (r == -EINTR && PyErr_CheckSignals() == 0);
    PyBuffer_Release(&buf);
    if (r == -EINTR)
        return NULL;
    if (r < 0)
        return sbx_py_errno(r);
    Py_RETURN_NONE;
}

/* (event, kind, body, memfd, n_body, n_memfd) from one received frame; checks only its
 * shape. */
static PyObject *frame_tuple(const char *buf, ssize_t n, int *memfd)
{
    int fd = *memfd;
    struct sbx_frame f;

    if (n >= (ssize_t)sizeof f)
        memcpy(&f, buf, sizeof f);
    if (n < (ssize_t)sizeof f || n != (ssize_t)sizeof f + f.n_inline ||
        (f.n_memfd != 0) != (fd >= 0) || f.n_body > f.n_memfd ||
        f.n_memfd > LLONG_MAX) {
        sbx_close(memfd);
        return Py_BuildValue("(iiy#iKK)", FRAME, 0, "", (Py_ssize_t)0, -1, 0ULL, 0ULL);
    }
    return Py_BuildValue("(iiy#iKK)", FRAME, (int)f.kind, buf + sizeof f,
                         (Py_ssize_t)f.n_inline, fd, (unsigned long long)f.n_body,
                         (unsigned long long)f.n_memfd);
}

static PyObject *bytes_event(int event, const char *buf, ssize_t n)
{
    return Py_BuildValue("(iiy#iKK)", event, 0, buf,
                         n < 0 ? (Py_ssize_t)0 : (Py_ssize_t)n, -1, 0ULL, 0ULL);
}

/* A received memfd into the caller's owner, if it gave one. *fd is closed on failure.
 */
static int adopt(PyObject *module, PyObject *owner, int *fd)
{
    if (!owner || owner == Py_None)
        return 0;
    int r = sbx_py_adopt(module, owner, *fd);
    if (r < 0)
        sbx_close(fd);
    return r;
}

PyDoc_STRVAR(
    wait_frame_doc,
    "wait_frame(channel, out, err, timeout_ms, owner: Descriptors | None = None)\n"
    "-> tuple[event, kind, body, memfd, n_body, n_memfd]\n\n"
    "Wait for what a job does next. event: 0 time over, 1 "
    "frame (kind 0: malformed), 2 bytes on\n"
    "stdout (b'' = closed), 3 on stderr, 4 channel closed. fds "
    "of -1 are not watched.\n"
    "A signal handler that raises ends the wait. A memfd belongs to `owner`, if "
    "given.");

static PyObject *py_wait_frame(PyObject *self, PyObject *args)
{
    enum { N = 3 };
    static const int events[N] = {FRAME, ON_STDOUT, ON_STDERR};
    int timeout, fd = -1, ready = 0;
    unsigned n_fds = 0;
    ssize_t n = 0;
    struct pollfd p[N] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}};

    PyObject *owner = NULL;
    if (!PyArg_ParseTuple(args, "iiii|O", &p[0].fd, &p[1].fd, &p[2].fd, &timeout,
                          &owner))
        return NULL;
    char *buf = PyMem_Malloc(READ_SIZE);
    if (!buf)
        return PyErr_NoMemory();
    uint64_t until = timeout < 0 ? 0 : sbx_now_ns() + (uint64_t)timeout * 1000000;
    do {
        Py_BEGIN_ALLOW_THREADS
        n = poll(p, N, left_ms(until));
        if (n < 0)
            n = -errno;
        for (ready = n > 0 ? 0 : N; ready < N && !p[ready].revents; ready++)
            ;
        if (n > 0 && ready == 0)
            n = sbx_recv(p[0].fd, buf, READ_SIZE, &fd, 1, &n_fds, MSG_DONTWAIT);
        else if (n > 0 && ready < N)
            n = sbx_py_read_now(p[ready].fd, buf, READ_SIZE);
        Py_END_ALLOW_THREADS
        if (n == -EAGAIN) /* somebody else took it */
            n = -EINTR;
    } while (n == -EINTR && PyErr_CheckSignals() == 0);
    PyObject *result = NULL;
    if (n == -EINTR)
        ;
    else if (n == 0 && ready == N)
        result = bytes_event(TIME_OVER, "", 0);
    else if (ready == 0 && (n == 0 || n == -ECONNRESET))
        result = bytes_event(CLOSED, "", 0);
    else if (ready == 0 && n == -EMFILE) /* ours, not the job's fault */
        result = sbx_py_errno(n);
    else if (ready == 0)
        result = n < 0 ? bytes_event(FRAME, "", 0) : frame_tuple(buf, n, &fd);
    else if (ready < N)
        result = bytes_event(events[ready], buf, n);
    else
        result = sbx_py_errno(n);
    if (result && adopt(self, owner, &fd) < 0)
        Py_CLEAR(result);
    PyMem_Free(buf);
    return result;
}

PyDoc_STRVAR(socketpair_doc, "socketpair() -> tuple[int, int]\n\n"
                             "A close-on-exec AF_UNIX SOCK_SEQPACKET pair, above 2.");

static PyObject *py_socketpair(PyObject *self, PyObject *args)
{
    int fds[2];

    (void)self;
    (void)args;
    int r = sbx_pair(fds);
    if (r < 0)
        return sbx_py_errno(r);
    return tuple_of_fds(fds, 2);
}

PyDoc_STRVAR(
    exchange_doc,
    "exchange(channel, out, err, kind: int, body: bytes, timeout_ms,\n"
    "owner: Descriptors | None = None)\n"
    "-> tuple[event, kind, body, memfd, n_body, n_memfd, stdout: bytes, stderr: "
    "bytes]\n\n"
    "The usual call in one step: send a frame, wait a moment for the answer, take what "
    "was\n"
    "printed before it. event: 1 the answer, 0 nothing yet or output first (go on "
    "with\n"
    "wait_frame), 4 channel closed, 5 the frame could not be sent (the job had died).");

static PyObject *py_exchange(PyObject *self, PyObject *args)
{
    int chan, out, err, kind, timeout, fd = -1, sent, ready = 0;
    unsigned n_fds = 0;
    ssize_t n = 0;
    Py_buffer body;

    PyObject *owner = NULL;
    if (!PyArg_ParseTuple(args, "iiiiy*i|O", &chan, &out, &err, &kind, &body, &timeout,
                          &owner))
        return NULL;
    char *buf = body.len <= SBX_FRAME_INLINE ? PyMem_Malloc(READ_SIZE) : NULL;
    if (!buf) {
        PyBuffer_Release(&body);
        return PyErr_Format(PyExc_ValueError, "frame body too long to go inline");
    }
    struct sbx_frame head = {(uint32_t)kind, (uint32_t)body.len, 0, 0};
    Py_BEGIN_ALLOW_THREADS
    sent = sbx_send(chan, &head, sizeof head, body.buf, (size_t)body.len, NULL, 0, 0);
    if (sent == 0) {
        struct pollfd p[3] = {{chan, POLLIN, 0}, {out, POLLIN, 0}, {err, POLLIN, 0}};
        /* What a call prints stands just before its answer: one wake-up for both. Only
         * a job that fills a pipe waits for us, for that moment. */
        int first = timeout < 0 || timeout > QUIET_MS ? QUIET_MS : timeout;
        int r = poll(p, 1, first);
        if (r == 0 && timeout != first)
            r = poll(p, 3, timeout < 0 ? timeout : timeout - first);
        if (r > 0 && p[0].revents) {
            ready = 1;
            n = sbx_recv(chan, buf, READ_SIZE, &fd, 1, &n_fds, MSG_DONTWAIT);
        }
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&body);
    PyObject *result = NULL, *said = NULL, *cried = NULL, *frame = NULL;
    int is_owned = 0;
    if (PyErr_CheckSignals() < 0) /* Ctrl-C: the caller kills the job */
        ;
    else if (sent < 0)
        frame = bytes_event(NOT_SENT, "", 0);
    else if (!ready)
        frame = bytes_event(TIME_OVER, "", 0);
    else if (n == 0 || n == -ECONNRESET)
        frame = bytes_event(CLOSED, "", 0);
    else if (n == -EMFILE)
        (void)sbx_py_errno(n);
    else
        frame = n < 0 ? bytes_event(FRAME, "", 0) : frame_tuple(buf, n, &fd);
    is_owned = frame && owner && owner != Py_None;
    if (frame && adopt(self, owner, &fd) < 0)
        Py_CLEAR(frame);
    if (frame) {
        said = ready ? sbx_py_drain(out, buf) : PyBytes_FromStringAndSize("", 0);
        cried =
            said ? (ready ? sbx_py_drain(err, buf) : PyBytes_FromStringAndSize("", 0))
                 : NULL;
    }
    if (cried) {
        PyObject *rest = PyTuple_Pack(2, said, cried);
        result = rest ? PySequence_Concat(frame, rest) : NULL;
        Py_XDECREF(rest);
    } else if (!is_owned) {
        sbx_close(&fd);
    }
    Py_XDECREF(frame);
    Py_XDECREF(said);
    Py_XDECREF(cried);
    PyMem_Free(buf);
    return result;
}

PyDoc_STRVAR(close_doc, "close_all(*fds: int) -> None\n\nClose those that are not -1.");

static PyObject *py_close_all(PyObject *self, PyObject *args)
{
    int fds[MAX_FDS], n = fds_of(args, fds);

    (void)self;
    if (n < 0)
        return NULL;
    for (int i = 0; i < n; i++)
        sbx_close(&fds[i]);
    Py_RETURN_NONE;
}

PyMethodDef sbx_py_messages[] = {
    {"socketpair", py_socketpair, METH_NOARGS, socketpair_doc},
    {"exchange", py_exchange, METH_VARARGS, exchange_doc},
    {"close_all", py_close_all, METH_VARARGS, close_doc},
    {"send", py_send, METH_VARARGS, send_doc},
    {"recv", py_recv, METH_VARARGS, recv_doc},
    {"send_frame", py_send_frame, METH_VARARGS, send_frame_doc},
    {"wait_frame", py_wait_frame, METH_VARARGS, wait_frame_doc},
    {NULL, NULL, 0, NULL},
};
