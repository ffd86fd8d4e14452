/* module.c - module definition of agentsbx._core; see module.h. */
#include "module.h"

#include <errno.h>

PyMODINIT_FUNC PyInit__core(void);

PyObject *sbx_py_errno(long negative_errno)
{
    errno = (int)-negative_errno;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static int exec_module(PyObject *module)
{
    PyMethodDef *groups[] = {sbx_py_messages, sbx_py_fds,   sbx_py_plan,
                             sbx_py_zygote,   sbx_py_files, NULL};

    for (PyMethodDef **group = groups; *group; group++)
        if (PyModule_AddFunctions(module, *group) < 0)
            return -1;
    return sbx_py_owner_add(module);
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    struct sbx_py_state *state = PyModule_GetState(module);

    Py_VISIT(state->owner_type);
    return 0;
}

static int clear(PyObject *module)
{
    struct sbx_py_state *state = PyModule_GetState(module);

    Py_CLEAR(state->owner_type);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)exec_module},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "agentsbx._core",
    .m_doc = "C core of agentsbx: messages, frames, filters, the zygote's serve loop.",
    .m_size = sizeof(struct sbx_py_state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
