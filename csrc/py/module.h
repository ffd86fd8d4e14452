/* module.h - the functions of the extension agentsbx._core, grouped by the process that
 * calls them.
 *
 * This folder is the only one with Python.h. Functions take and return ints, bytes and
 * tuples, and owners of received descriptors; no logic lives here, no C code calls back
 * into Python (law 2), module state is the one type.
 */
#ifndef SBX_MODULE_H
#define SBX_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyMethodDef sbx_py_messages[]; /* any process: messages and frames */
extern PyMethodDef sbx_py_fds[];      /* any process: pipes */
extern PyMethodDef sbx_py_plan[];     /* host: filter compiler, plan check */
extern PyMethodDef sbx_py_zygote[];   /* zygote: the serve loop */
extern PyMethodDef sbx_py_files[];    /* job: what is left in private places */

enum { SBX_PY_READ_SIZE = 65536 };

/* read(2) of what is there, without waiting. Bytes, or -errno. */
ssize_t sbx_py_read_now(int fd, char *buf, size_t n);
/* What is in a pipe now, without waiting, as bytes; `buf` holds SBX_PY_READ_SIZE. NULL
 * with an exception on failure. */
PyObject *sbx_py_drain(int fd, char *buf);

struct sbx_py_state {
    PyObject *owner_type;
};
/* owner.c: the type, into a module; an object that closes up to four descriptors with
 * its last reference (they are closed at once on failure, NULL with an exception). */
int sbx_py_owner_add(PyObject *module);
PyObject *sbx_py_own(PyObject *module, const int *fds, unsigned n);
/* One more for an owner. 0; or -1 with an exception, and the caller closes it. */
int sbx_py_adopt(PyObject *module, PyObject *owner, int fd);

/* OSError from -errno; returns NULL. */
PyObject *sbx_py_errno(long negative_errno);

#endif
