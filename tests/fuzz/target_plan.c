/* The checker of plans: whatever it lets pass is then read as the child reads it. */
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/io.h"
#include "../../csrc/plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sbx_err e = {0};
    uint32_t kind = n ? data[0] : 0;
    size_t n_plan = n ? n - 1 : 0, total = 0;
    char *copy = malloc(n_plan ? n_plan : 1); /* aligned as a mapping is */
    const struct sbx_plan *p = (void *)copy;

    memcpy(copy, data + (n != 0), n_plan);
    /* Lengths are what mutations break first: half of the inputs get the right one. */
    if ((kind & 16) && n_plan >= sizeof *p)
        memcpy(copy + offsetof(struct sbx_plan, n_bytes), &(uint32_t){(uint32_t)n_plan},
               4);
    if (sbx_plan_check(copy, n_plan, kind & 3, &e)) {
        SBX_CHECK(e.stage == SBX_STAGE_PLAN);
        free(copy);
        return 0;
    }
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sbx_op *op = sbx_plan_ops(p) + i;
        total += strlen(sbx_plan_str(p, op->path)) + strlen(sbx_plan_str(p, op->text));
        SBX_CHECK(op->kind < SBX_N_OPS);
        SBX_CHECK(op->kind != SBX_OP_BIND || op->arg < p->n_mounts);
    }
    for (uint32_t i = 0; i < p->n_bpf * 8; i++)
        total += (unsigned char)copy[p->bpf_off + i];
    SBX_CHECK(total < (size_t)-1);
    free(copy);
    return 0;
}
