/* zygote.c - the serve loop for the Python zygote. */
#include "module.h"

#include "../child/child.h"
#include "../spawn/zygote.h"

#include <sched.h>
#include <sys/wait.h>

PyDoc_STRVAR(
    serve_doc,
    "zygote_serve(sock) -> tuple[int, int, int] | None\n\n"
    "Fork jobs as the supervisor asks, for ever. Returns None in the zygote when the\n"
    "supervisor is gone, (job_id, snapshot_version, cpu) in each job with all walls "
    "up.");

static PyObject *py_zygote_serve(PyObject *self, PyObject *args)
{
    /* CPython's own fork protocol (stable ABI): import lock, at-fork hooks, GIL state.
     */
    const struct sbx_fork_hooks hooks = {PyOS_BeforeFork, PyOS_AfterFork_Parent};
    struct sbx_job_info info = {0, 0};
    int sock, r;

    (void)self;
    if (!PyArg_ParseTuple(args, "i", &sock))
        return NULL;
    r = sbx_zygote_serve(sock, &hooks, &info);
    if (r < 0)
        return sbx_py_errno(r);
    if (r == 0)
        Py_RETURN_NONE;
    PyOS_AfterFork_Child();
    return Py_BuildValue("(KKI)", (unsigned long long)info.job_id,
                         (unsigned long long)info.version, (unsigned)info.cpu);
}

PyDoc_STRVAR(wait_on_doc,
             "cpu_wait_on(cpu: int) -> None\n\n"
             "Job: wait for the call on that CPU (1 + number; 0: anywhere).");

static PyObject *py_cpu_wait_on(PyObject *self, PyObject *args)
{
    unsigned cpu;

    (void)self;
    if (!PyArg_ParseTuple(args, "I", &cpu))
        return NULL;
    sbx_cpu_wait_on(cpu);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(release_doc,
             "cpu_release() -> None\n\nJob: the call has come, use all CPUs.");

static PyObject *py_cpu_release(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    sbx_cpu_release();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(current_doc, "cpu_current() -> int\n\n"
                          "1 + the CPU that this thread runs on, 0 where unknown.");

static PyObject *py_cpu_current(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    return PyLong_FromLong(sched_getcpu() + 1);
}

PyDoc_STRVAR(children_doc, "has_children() -> bool\n\n"
                           "Whether this process has a child that was not waited for.");

static PyObject *py_has_children(PyObject *self, PyObject *args)
{
    siginfo_t info;

    (void)self;
    (void)args;
    return PyBool_FromLong(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
}

PyMethodDef sbx_py_zygote[] = {
    {"has_children", py_has_children, METH_NOARGS, children_doc},
    {"cpu_wait_on", py_cpu_wait_on, METH_VARARGS, wait_on_doc},
    {"cpu_release", py_cpu_release, METH_NOARGS, release_doc},
    {"cpu_current", py_cpu_current, METH_NOARGS, current_doc},
    {"zygote_serve", py_zygote_serve, METH_VARARGS, serve_doc},
    {NULL, NULL, 0, NULL},
};
