/* walls.c - Landlock, seccomp, and the proof that both stand. */
#include "child.h"

#include "../base/io.h"
#include "../base/sys.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/stat.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5) /* 5.19 */
#endif

/* Rights that a rule on a file may carry (landlock(7)): EXECUTE, WRITE_FILE, READ_FILE,
 * TRUNCATE, IOCTL_DEV. */
enum { FILE_RIGHTS = 1 | 2 | 4 | (1 << 14) | (1 << 15) };

/* landlock_ruleset_attr of ABI 6; older kernels get the prefix that they know, and only
 * if the rest is zero. Own struct: the system header may be older than the kernel. */
struct ruleset_attr {
    uint64_t fs, net, scope;
};

static int add_rule(const struct sbx_setup *s, int ruleset, const struct sbx_op *op)
{
    struct landlock_path_beneath_attr rule = {.allowed_access =
                                                  op->a & s->plan->landlock_fs};
    struct stat st;
    /* As the mounts were placed: a link that a sibling puts into a shared grant leads
     * nowhere. */
    SBX_FD int fd =
        sbx_openat2(AT_FDCWD, sbx_plan_str(s->plan, op->path), O_PATH | O_CLOEXEC, 0,
                    RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);

    if (fd < 0)
        return fd == -ENOENT && (op->flags & SBX_F_OPTIONAL) ? 0 : fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        rule.allowed_access &= FILE_RIGHTS;
    rule.parent_fd = fd;
    if (!rule.allowed_access)
        return 0;
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule,
                   0) < 0
               ? -errno
               : 0;
}

/* A ruleset of this job alone: a shared one could be widened by a sibling that kept the
 * fd. Takes all consecutive LANDLOCK ops from `first`; *next is the op behind them. */
int sbx_walls_landlock(struct sbx_setup *s, unsigned first, unsigned *next,
                       struct sbx_err *e)
{
    const struct sbx_plan *p = s->plan;
    struct ruleset_attr attr = {p->landlock_fs, p->landlock_net, p->landlock_scope};
    size_t n = attr.scope ? 24 : attr.net ? 16 : 8;
    SBX_FD int ruleset = SBX_RET(syscall(SYS_landlock_create_ruleset, &attr, n, 0));
    unsigned i = first;

    if (ruleset < 0)
        return sbx_fail(e, SBX_STAGE_LANDLOCK, first, ruleset);
    for (; i < p->n_ops && sbx_plan_ops(p)[i].kind == SBX_OP_LANDLOCK; i++) {
        int r = add_rule(s, ruleset, sbx_plan_ops(p) + i);
        if (r < 0)
            return sbx_fail(e, SBX_STAGE_LANDLOCK, i, r);
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        return sbx_fail(e, SBX_STAGE_LANDLOCK, first, errno);
    *next = i;
    return 0;
}

int sbx_walls_seccomp(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                      struct sbx_err *e)
{
    struct sock_fprog prog = {
        .len = (unsigned short)s->plan->n_bpf,
        .filter = (struct sock_filter *)((const char *)s->plan + s->plan->bpf_off),
    };
    unsigned long flags = 0;
    long r;

    if (op->flags & SBX_F_LISTENER)
        flags =
            SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
    if (r < 0 && errno == EINVAL && flags) { /* before 5.19 */
        flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
        r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
    }
    if (r < 0)
        return sbx_fail(e, SBX_STAGE_SECCOMP, i, errno);
    if (flags)
        s->listener_fd = (int)r;
    if (s->plan->kind == SBX_PLAN_JOB &&
        (syscall(SBX_CANARY_NR, 0, 0, 0, 0, 0, 0) != -1 || errno != SBX_CANARY_ERRNO))
        return sbx_fail(e, SBX_STAGE_SELFTEST, i, EPROTO);
    return 0;
}

int sbx_walls_canary(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                     struct sbx_err *e)
{
    SBX_FD int fd = open(sbx_plan_str(s->plan, op->path), O_RDONLY | O_CLOEXEC);

    if (fd >= 0 || errno != (int)op->arg)
        return sbx_fail(e, SBX_STAGE_SELFTEST, i, fd >= 0 ? EEXIST : errno);
    return 0;
}
