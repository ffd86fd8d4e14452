/* ids.c - the job's identity: a user namespace of its own (own counters, no shared
 * rlimits). */
#include "child.h"

#include "../base/io.h"
#include "../base/sys.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>

/* "inside outside 1" */
static void map_line(char *buf, uint64_t inside, uint64_t outside)
{
    char num[24];

    strcpy(buf, sbx_u64_str(inside, num));
    strcat(buf, " ");
    strcat(buf, sbx_u64_str(outside, num));
    strcat(buf, " 1");
}

/* Take the pool's id in the zygote's namespace, then a namespace in which that one id
 * is all there is. The job writes its own maps: one id, its own, needs no capability
 * outside (user_namespaces(7)). */
int sbx_ids_enter(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                  struct sbx_err *e)
{
    char line[80];
    uint32_t id = s->uid_index;
    int r;

    if (id && (syscall(SYS_setresgid, id, id, id) < 0 ||
               syscall(SYS_setresuid, id, id, id) < 0))
        return sbx_fail(e, SBX_STAGE_IDS, i, errno);
    if (unshare(CLONE_NEWUSER) < 0)
        return sbx_fail(e, SBX_STAGE_USERNS, i, errno);
    /* An id change makes the process undumpable: its own map files would belong to
     * root. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return sbx_fail(e, SBX_STAGE_IDMAP, i, errno);
    map_line(line, op->a, id);
    r = sbx_write_file(s->proc_fd, "self/uid_map", line);
    if (r == 0)
        r = sbx_write_file(s->proc_fd, "self/setgroups", "deny");
    map_line(line, op->b, id);
    if (r == 0)
        r = sbx_write_file(s->proc_fd, "self/gid_map", line);
    return r < 0 ? sbx_fail(e, SBX_STAGE_IDMAP, i, r) : 0;
}

/* /proc/sys/user/... of the *current* user namespace, through the zygote's writable
 * proc. */
int sbx_ids_sysctl(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                   struct sbx_err *e)
{
    const char *path = sbx_plan_str(s->plan, op->path);
    int r = strncmp(path, "/proc/", 6)
                ? -EINVAL
                : sbx_write_file(s->proc_fd, path + 6, sbx_plan_str(s->plan, op->text));

    if (r == -ENOENT && (op->flags & SBX_F_OPTIONAL))
        return 0;
    return r < 0 ? sbx_fail(e, SBX_STAGE_SYSCTL, i, r) : 0;
}
