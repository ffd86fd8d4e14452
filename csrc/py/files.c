/* files.c - what a job leaves in its private places, and names by pattern. */
#include "module.h"

#include "../base/glob.h"
#include "../job/leftovers.h"

#include <string.h>

PyDoc_STRVAR(glob_doc, "glob_match(pattern: bytes, name: bytes) -> bool\n\n"
                       "Whether a relative name matches (csrc/base/glob.h).");

static PyObject *py_glob_match(PyObject *self, PyObject *args)
{
    const char *pattern, *name;

    (void)self;
    if (!PyArg_ParseTuple(args, "yy", &pattern, &name))
        return NULL;
    return PyBool_FromLong(sbx_glob_match(pattern, name));
}

PyDoc_STRVAR(count_doc, "count_leftovers() -> int\n\n"
                        "Job: inodes in use in private storage.");

static PyObject *py_count_leftovers(PyObject *self, PyObject *args)
{
    long n = sbx_leftovers_count();

    (void)self;
    (void)args;
    return n < 0 ? sbx_py_errno(n) : PyLong_FromLong(n);
}

PyDoc_STRVAR(send_doc,
             "send_leftovers(channel: int, patterns: bytes, max_bytes: int) -> None\n\n"
             "Job: tell the host what lies in private places; send what matches one of "
             "the\nNUL-terminated patterns, `max_bytes` of it at most.");

static PyObject *py_send_leftovers(PyObject *self, PyObject *args)
{
    int channel, r;
    unsigned long long max_bytes;
    Py_buffer patterns;

    (void)self;
    if (!PyArg_ParseTuple(args, "iy*K", &channel, &patterns, &max_bytes))
        return NULL;
    const char *p = patterns.buf;
    struct sbx_leftovers *w = NULL;
    if (patterns.len && p[patterns.len - 1])
        PyErr_SetString(PyExc_ValueError, "patterns end with NUL");
    else if (!(w = PyMem_Malloc(sizeof *w)))
        (void)PyErr_NoMemory();
    if (w) {
        struct sbx_keep keep = {p, (size_t)patterns.len, max_bytes};
        Py_BEGIN_ALLOW_THREADS
        r = sbx_leftovers_send(w, channel, &keep);
        Py_END_ALLOW_THREADS
        PyMem_Free(w);
        if (r < 0)
            (void)sbx_py_errno(r);
    }
    PyBuffer_Release(&patterns);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef sbx_py_files[] = {
    {"glob_match", py_glob_match, METH_VARARGS, glob_doc},
    {"count_leftovers", py_count_leftovers, METH_NOARGS, count_doc},
    {"send_leftovers", py_send_leftovers, METH_VARARGS, send_doc},
    {NULL, NULL, 0, NULL},
};
