/* limits.c - rlimits and capabilities. */
#include "child.h"

#include "../base/io.h"
#include "../base/sys.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int sbx_limits_rlimit(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                      struct sbx_err *e)
{
    struct {
        uint64_t cur, max;
    } lim = {op->a, op->b};

    (void)s; /* raw call: musl's setrlimit signals other threads */
    if (syscall(SYS_prlimit64, 0, op->arg, &lim, NULL) < 0)
        return sbx_fail(e, SBX_STAGE_RLIMIT, i, errno);
    return 0;
}

/* The kernel takes the CPUs that the cpuset allows and leaves out the others in silence
 * (sched_setaffinity(2)): what it took is read back, and must be all. */
int sbx_limits_cpus(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                    struct sbx_err *e)
{
    enum { BITS = 8 * sizeof(unsigned long), WORDS = 16 }; /* 1024 CPUs: CPU_SETSIZE */
    unsigned long want[WORDS] = {0}, got[WORDS] = {0};
    const char *c = sbx_plan_str(s->plan, op->text);
    unsigned cpu = 0;

    for (;; c++) {
        if (*c >= '0' && *c <= '9') {
            cpu = cpu * 10 + (unsigned)(*c - '0');
            if (cpu >= BITS * WORDS)
                return sbx_fail(e, SBX_STAGE_RLIMIT, i, EINVAL);
            continue;
        }
        if (*c && *c != ',')
            return sbx_fail(e, SBX_STAGE_RLIMIT, i, EINVAL);
        want[cpu / BITS] |= 1ul << (cpu % BITS);
        cpu = 0;
        if (!*c)
            break;
    }
    if (syscall(SYS_sched_setaffinity, 0, sizeof want, want) < 0 ||
        syscall(SYS_sched_getaffinity, 0, sizeof got, got) < 0)
        return sbx_fail(e, SBX_STAGE_RLIMIT, i, errno);
    for (unsigned w = 0; w < WORDS; w++)
        if (want[w] != got[w])
            return sbx_fail(e, SBX_STAGE_RLIMIT, i, EINVAL);
    return 0;
}

int sbx_limits_caps(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                    struct sbx_err *e)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    const int locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                       SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                       SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

    (void)s;
    (void)op;
    for (int cap = 0; cap < 64; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL && cap > CAP_BLOCK_SUSPEND)
                break; /* past the last capability of this kernel */
            return sbx_fail(e, SBX_STAGE_CAPS, i, errno);
        }
    if (prctl(PR_SET_SECUREBITS, locked, 0, 0, 0) < 0 ||
        syscall(SYS_capset, &head, none) < 0)
        return sbx_fail(e, SBX_STAGE_CAPS, i, errno);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return sbx_fail(e, SBX_STAGE_NNP, i, errno);
    return 0;
}
