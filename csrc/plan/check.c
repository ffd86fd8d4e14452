/* check.c - a plan is data from another process: see plan.h. */
#include "plan.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>

enum { IN_TEMPLATE = 1, IN_JOB = 2, PATH = 4, TEXT = 8, TEXT_IS_PATH = 16 };

static const uint8_t op_rules[SBX_N_OPS] = {
    [SBX_OP_TMPFS] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_MKDIR] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_WRITE] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_SYMLINK] = IN_TEMPLATE | IN_JOB | PATH | TEXT,
    [SBX_OP_BIND] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_NODE] = IN_TEMPLATE | PATH,
    [SBX_OP_SELF] = IN_TEMPLATE | IN_JOB | PATH | TEXT | TEXT_IS_PATH,
    [SBX_OP_MOVE] = IN_JOB | PATH | TEXT | TEXT_IS_PATH,
    [SBX_OP_PROC] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_MASK] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_RDONLY] = IN_TEMPLATE | IN_JOB | PATH,
    [SBX_OP_PIVOT] = IN_TEMPLATE,
    [SBX_OP_DETACH] = IN_JOB | PATH,
    [SBX_OP_HOSTNAME] = IN_TEMPLATE | TEXT,
    [SBX_OP_IDS] = IN_JOB,
    [SBX_OP_SYSCTL] = IN_JOB | PATH | TEXT,
    [SBX_OP_RLIMIT] = IN_TEMPLATE | IN_JOB,
    [SBX_OP_CPUS] = IN_JOB | TEXT,
    [SBX_OP_CAPS] = IN_JOB,
    [SBX_OP_LANDLOCK] = IN_JOB | PATH,
    [SBX_OP_SECCOMP] = IN_TEMPLATE | IN_JOB,
    [SBX_OP_CANARY] = IN_JOB | PATH,
    [SBX_OP_CHDIR] = IN_JOB | PATH,
    [SBX_OP_ARG] = IN_TEMPLATE | TEXT,
    [SBX_OP_ENV] = IN_TEMPLATE | TEXT,
};

/* Group of an op: the tree may interleave, the later groups come in order. */
static int group_of(unsigned kind)
{
    return kind <= SBX_OP_DETACH   ? 0
           : kind <= SBX_OP_SYSCTL ? 1
           : kind <= SBX_OP_CPUS   ? 2
           : kind <= SBX_OP_CANARY ? 3
                                   : 4;
}

static int is_clean_path(const char *p)
{
    if (*p != '/')
        return 0;
    for (const char *c = p; *c;) {
        const char *end = strchr(++c, '/');
        size_t n = end ? (size_t)(end - c) : strlen(c);
        if ((n == 0 && (end || c != p + 1)) || (n == 1 && c[0] == '.') ||
            (n == 2 && c[0] == '.' && c[1] == '.'))
            return 0;
        c += n;
    }
    return 1;
}

int sbx_plan_check(const void *bytes, size_t n, uint32_t kind, struct sbx_err *e)
{
    const struct sbx_plan *p = bytes;
    uint64_t ops_end;
    int group = 0;

    if (n < sizeof *p || n > SBX_MAX_PLAN || p->magic != SBX_PLAN_MAGIC ||
        p->kind != kind || p->n_bytes != n || p->n_ops > SBX_MAX_OPS ||
        p->n_bpf > SBX_MAX_BPF)
        return sbx_fail(e, SBX_STAGE_PLAN, 0, EINVAL);
    ops_end = sizeof *p + (uint64_t)p->n_ops * sizeof(struct sbx_op);
    if (ops_end > n || (p->n_bpf && (p->bpf_off < ops_end || p->bpf_off % 8)) ||
        (uint64_t)p->bpf_off + (uint64_t)p->n_bpf * sizeof(struct sock_filter) > n ||
        p->strings_off < ops_end || p->n_strings == 0 ||
        (uint64_t)p->strings_off + p->n_strings > n || sbx_plan_str(p, 0)[0] != 0 ||
        sbx_plan_str(p, p->n_strings - 1)[0] != 0)
        return sbx_fail(e, SBX_STAGE_PLAN, 0, EINVAL);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sbx_op *op = sbx_plan_ops(p) + i;
        unsigned rules = op->kind < SBX_N_OPS ? op_rules[op->kind] : 0;

        if (!(rules & (kind == SBX_PLAN_JOB ? IN_JOB : IN_TEMPLATE)) ||
            op->path >= p->n_strings || op->text >= p->n_strings ||
            group_of(op->kind) < group ||
            ((rules & PATH) && !is_clean_path(sbx_plan_str(p, op->path))) ||
            ((rules & TEXT) && op->text == 0) ||
            ((rules & TEXT_IS_PATH) && !is_clean_path(sbx_plan_str(p, op->text))) ||
            (op->kind == SBX_OP_BIND && op->arg >= p->n_mounts) ||
            (op->kind == SBX_OP_SECCOMP && p->n_bpf == 0))
            return sbx_fail(e, SBX_STAGE_PLAN, i, EINVAL);
        group = group_of(op->kind);
    }
    return 0;
}
