/* owner.c - received descriptors, and who closes them.
 *
 * A signal's handler may raise between any two steps of Python code, Ctrl-C in the
 * first place: what had come as plain numbers would then stay open for ever, and with
 * it the sandbox at its other end. An object is dropped with the frame that holds it.
 */
#include "module.h"

#include "../base/io.h"

#include <errno.h>

enum { MAX_FIRST = 4, MAX_OWNED = 8 };

struct owner {
    PyObject ob_base;    /* PyObject_HEAD, which clang-format cannot read */
    unsigned n, n_first; /* used places; those that came first, in their order */
    int fds[MAX_OWNED];
};

static void close_owned(struct owner *o)
{
    for (unsigned i = 0; i < o->n; i++)
        sbx_close(&o->fds[i]);
}

static void owner_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    close_owned((struct owner *)self);
    release(self);
    Py_DECREF(type);
}

static Py_ssize_t owner_length(PyObject *self)
{
    return (Py_ssize_t)((struct owner *)self)->n_first;
}

static PyObject *owner_numbers(PyObject *self, PyObject *args)
{
    struct owner *o = (struct owner *)self;
    PyObject *t = PyTuple_New((Py_ssize_t)o->n_first);

    (void)args;
    for (unsigned i = 0; t && i < o->n_first; i++) {
        PyObject *v = PyLong_FromLong(o->fds[i]);
        if (!v || PyTuple_SetItem(t, (Py_ssize_t)i, v) < 0)
            Py_CLEAR(t);
    }
    return t;
}

static PyObject *owner_close(PyObject *self, PyObject *args)
{
    struct owner *o = (struct owner *)self;
    int fd = -1, is_ours = 0;

    if (!PyArg_ParseTuple(args, "|i", &fd))
        return NULL;
    if (fd < 0)
        close_owned(o);
    else
        for (unsigned i = 0; i < o->n; i++)
            if (o->fds[i] == fd) {
                sbx_close(&o->fds[i]);
                is_ours = 1;
            }
    return PyBool_FromLong(is_ours);
}

static PyObject *owner_take(PyObject *self, PyObject *args)
{
    struct owner *o = (struct owner *)self;
    PyObject *t = owner_numbers(self, NULL);

    (void)args;
    for (unsigned i = 0; t && i < o->n_first; i++)
        o->fds[i] = -1;
    return t;
}

static PyMethodDef methods[] = {
    {"numbers", owner_numbers, METH_NOARGS, "The descriptors, -1 for a closed one."},
    {"close", owner_close, METH_VARARGS,
     "Close all, or the one given: whether it was open here."},
    {"take", owner_take, METH_NOARGS, "The descriptors, which are the caller's now."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (char *)"Descriptors that close with their last reference."},
    {Py_tp_dealloc, owner_dealloc},
    {Py_tp_methods, methods},
    {Py_sq_length, owner_length},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "agentsbx._core.Descriptors",
    .basicsize = sizeof(struct owner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int sbx_py_owner_add(PyObject *module)
{
    struct sbx_py_state *state = PyModule_GetState(module);

    state->owner_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->owner_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->owner_type);
}

int sbx_py_adopt(PyObject *module, PyObject *owner, int fd)
{
    struct sbx_py_state *state = PyModule_GetState(module);
    struct owner *o = (struct owner *)owner;
    unsigned i;

    if (!PyObject_TypeCheck(owner, (PyTypeObject *)state->owner_type)) {
        PyErr_SetString(PyExc_TypeError, "an owner of descriptors is wanted");
        return -1;
    }
    if (fd < 0)
        return 0;
    for (i = o->n_first; i < o->n && o->fds[i] >= 0; i++)
        ;
    if (i == MAX_OWNED) {
        PyErr_SetString(PyExc_ValueError, "more descriptors than one owner takes");
        return -1;
    }
    o->fds[i] = fd;
    o->n += i == o->n;
    return 0;
}

PyObject *sbx_py_own(PyObject *module, const int *fds, unsigned n)
{
    struct sbx_py_state *state = PyModule_GetState(module);
    PyTypeObject *type = (PyTypeObject *)state->owner_type;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct owner *o = n <= MAX_FIRST ? (struct owner *)make(type, 0) : NULL;

    for (unsigned i = 0; i < n; i++) {
        int fd = fds[i];
        if (o)
            o->fds[i] = fd;
        else
            sbx_close(&fd);
    }
    if (o)
        o->n = o->n_first = n;
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "more descriptors than one owner takes");
    return (PyObject *)o;
}
