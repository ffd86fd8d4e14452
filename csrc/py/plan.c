/* plan.c - host side of plans: the filter compiler and the plan checker. */
#include "module.h"

#include "../plan/filter.h"
#include "../plan/plan.h"

#include <stdlib.h>

PyDoc_STRVAR(check_doc,
             "check_plan(plan: bytes, kind: int) -> bytes\n\n"
             "b'' if the plan is well-formed, else the 12-byte error record.");

static PyObject *py_check_plan(PyObject *self, PyObject *args)
{
    struct sbx_err e = {0};
    unsigned kind;
    Py_buffer buf;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*I", &buf, &kind))
        return NULL;
    int r = sbx_plan_check(buf.buf, (size_t)buf.len, kind, &e);
    PyBuffer_Release(&buf);
    return PyBytes_FromStringAndSize(r < 0 ? (const char *)&e : "",
                                     r < 0 ? (Py_ssize_t)sizeof e : 0);
}

PyDoc_STRVAR(
    filter_doc,
    "compile_filter(rules: bytes, default_action: int) -> bytes\n\n"
    "Raw BPF of a filter; `rules` is an array of struct sbx_rule (plan/filter.h).");

static PyObject *py_compile_filter(PyObject *self, PyObject *args)
{
    struct sbx_err e = {0};
    unsigned action;
    size_t n_bytes = 0;
    void *bpf = NULL;
    Py_buffer buf;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*I", &buf, &action))
        return NULL;
    if ((size_t)buf.len % sizeof(struct sbx_rule)) {
        PyBuffer_Release(&buf);
        PyErr_SetString(PyExc_ValueError,
                        "rules: not a whole number of struct sbx_rule");
        return NULL;
    }
    int r = sbx_filter_build(buf.buf, (size_t)buf.len / sizeof(struct sbx_rule), action,
                             &bpf, &n_bytes, &e);
    PyBuffer_Release(&buf);
    if (r < 0)
        return sbx_py_errno(r);
    PyObject *result = PyBytes_FromStringAndSize(bpf, (Py_ssize_t)n_bytes);
    free(bpf);
    return result;
}

PyMethodDef sbx_py_plan[] = {
    {"check_plan", py_check_plan, METH_VARARGS, check_doc},
    {"compile_filter", py_compile_filter, METH_VARARGS, filter_doc},
    {NULL, NULL, 0, NULL},
};
