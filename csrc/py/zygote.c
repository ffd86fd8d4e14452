/* zygote.c - the serve loop for the Python zygote. */
#include "module.h"

#include "../spawn/zygote.h"

PyDoc_STRVAR(
    serve_doc,
    "zygote_serve(sock) -> tuple[int, int] | None\n\n"
    "Fork jobs as the supervisor asks, for ever. Returns None in the zygote when the\n"
    "supervisor is gone, (job_id, snapshot_version) in each job with all walls up.");

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
    return Py_BuildValue("(KK)", (unsigned long long)info.job_id,
                         (unsigned long long)info.version);
}

PyMethodDef sbx_py_zygote[] = {
    {"zygote_serve", py_zygote_serve, METH_VARARGS, serve_doc},
    {NULL, NULL, 0, NULL},
};
