/* err.h - the one error record of agentsbx (law 8): twelve bytes that cross every
 * boundary.
 *
 * C fills it, Python alone turns it into words (agentsbx/errors.py). May be used in
 * every process, also between fork and exec: nothing here allocates.
 */
#ifndef SBX_ERR_H
#define SBX_ERR_H

#include <stdint.h>

enum sbx_stage {
#define SBX_STAGE(id, name, text) SBX_STAGE_##id,
#include "stage.def"
#undef SBX_STAGE
    SBX_N_STAGES
};

struct sbx_err {
    uint16_t stage;  /* enum sbx_stage; 0 = no error */
    uint16_t op;     /* index of the plan's operation, or 0 */
    int32_t err;     /* positive errno */
    uint32_t detail; /* stage-specific number (limit, syscall, path index), 0 if none */
};

/* Record an error unless one is already there. Returns -errno, for `return
 * sbx_fail(...)`. */
static inline int sbx_fail(struct sbx_err *e, enum sbx_stage stage, unsigned op,
                           int err)
{
    if (e->stage == 0) {
        e->stage = (uint16_t)stage;
        e->op = (uint16_t)op;
        e->err = err < 0 ? -err : err;
    }
    return err < 0 ? err : -err;
}

#endif
