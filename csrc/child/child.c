/* child.c - the two set-ups, in order. Read child.h first. */
#include "child.h"

#include "../base/io.h"
#include "../base/sys.h"
#include "../base/wire.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { MAX_WORDS = 256 };

/* Ops in plan order; ARG and ENV are collected by the caller. */
static int run_ops(struct sbx_setup *s, struct sbx_err *e)
{
    const struct sbx_plan *p = s->plan;

    for (unsigned i = 0; i < p->n_ops;) {
        const struct sbx_op *op = sbx_plan_ops(p) + i;
        unsigned next = i + 1;
        int r = 0;

        switch ((enum sbx_op_kind)op->kind) {
        case SBX_OP_TMPFS:
        case SBX_OP_MKDIR:
        case SBX_OP_WRITE:
        case SBX_OP_SYMLINK:
        case SBX_OP_BIND:
        case SBX_OP_NODE:
        case SBX_OP_SELF:
        case SBX_OP_MOVE:
        case SBX_OP_PROC:
        case SBX_OP_MASK:
        case SBX_OP_RDONLY:
        case SBX_OP_PIVOT:
        case SBX_OP_DETACH: r = sbx_tree_op(s, op, i, e); break;
        case SBX_OP_HOSTNAME: {
            const char *name = sbx_plan_str(p, op->text);
            if (sethostname(name, strlen(name)) < 0)
                r = sbx_fail(e, SBX_STAGE_NAMESPACES, i, errno);
            break;
        }
        case SBX_OP_IDS: r = sbx_ids_enter(s, op, i, e); break;
        case SBX_OP_SYSCTL: r = sbx_ids_sysctl(s, op, i, e); break;
        case SBX_OP_RLIMIT:
            /* unix(7) ETOOMANYREFS: a low RLIMIT_NOFILE would forbid to send the
             * listener while many fds of this user are in flight. */
            if (op->arg == RLIMIT_NOFILE)
                s->nofile = op;
            else
                r = sbx_limits_rlimit(s, op, i, e);
            break;
        case SBX_OP_CPUS: r = sbx_limits_cpus(s, op, i, e); break;
        case SBX_OP_CAPS: r = sbx_limits_caps(s, op, i, e); break;
        case SBX_OP_LANDLOCK: r = sbx_walls_landlock(s, i, &next, e); break;
        case SBX_OP_SECCOMP: r = sbx_walls_seccomp(s, op, i, e); break;
        case SBX_OP_CANARY: r = sbx_walls_canary(s, op, i, e); break;
        case SBX_OP_CHDIR:
            if (chdir(sbx_plan_str(p, op->path)) < 0)
                r = sbx_fail(e, SBX_STAGE_CHDIR, i, errno);
            break;
        case SBX_OP_ARG:
        case SBX_OP_ENV: break;
        case SBX_OP_END:
        case SBX_N_OPS: r = sbx_fail(e, SBX_STAGE_PLAN, i, EINVAL); break;
        }
        if (r < 0)
            return r;
        i = next;
    }
    return 0;
}

static int enter_namespaces(const struct sbx_plan *p, struct sbx_err *e)
{
    int flags = CLONE_NEWCGROUP | (p->flags & SBX_PLAN_MOUNT_NS ? CLONE_NEWNS : 0) |
                (p->flags & SBX_PLAN_IPC_NS ? CLONE_NEWIPC : 0);

    if (unshare(flags) < 0)
        return sbx_fail(e, SBX_STAGE_NAMESPACES, 0, errno);
    return 0;
}

/* dup3 onto itself is EINVAL: only ever used with a source >= 5. */
static int put_fd(int from, int to, struct sbx_err *e)
{
    return dup3(from, to, 0) < 0 ? sbx_fail(e, SBX_STAGE_FDS, (unsigned)to, errno) : 0;
}

static int set_up_job(struct sbx_job_start *j, struct sbx_setup *s, struct sbx_err *e)
{
    /* First of all: without a session of its own kill(0) and setpriority(PRIO_PGRP)
     * reach the zygote. */
    if (setsid() < 0)
        return sbx_fail(e, SBX_STAGE_SESSION, 0, errno);
    for (unsigned i = 0; i < j->n_cgroup_fds; i++)
        if (write(j->cgroup_fds[i], "0", 1) != 1)
            return sbx_fail(e, SBX_STAGE_CGROUP, i, errno);
    /* After the control group: the namespace's root is the group that the job is in
     * now. */
    if (enter_namespaces(j->plan, e) < 0)
        return -1;
    /* The zygote's 0 is one open file description for all jobs: flags and locks that
     * one sets there would meet the next. */
    SBX_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return sbx_fail(e, SBX_STAGE_DEV, 0, errno);
    if (put_fd(null, 0, e) < 0)
        return -1;
    s->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    s->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s->root_fd < 0 || s->proc_fd < 0)
        return sbx_fail(e, SBX_STAGE_ROOT, 0, errno);
    return run_ops(s, e);
}

static int report_ready(struct sbx_job_start *j, const struct sbx_setup *s,
                        const struct sbx_err *e)
{
    struct sbx_ready msg = {.head = {SBX_MSG_READY, 0}, .job_id = j->job_id, .err = *e};

    msg.has_listener = s->listener_fd >= 0;
    return sbx_send(j->zygote_sock, &msg, sizeof msg, NULL, 0, &s->listener_fd,
                    msg.has_listener, 0);
}

void sbx_child_job(struct sbx_job_start *j)
{
    struct sbx_setup s = {.plan = j->plan,
                          .pool_id = j->pool_id,
                          .uid_index = j->uid_index,
                          .root_fd = -1,
                          .proc_fd = -1,
                          .listener_fd = -1};
    struct sbx_err e = {0};
    int r;

    sbx_signals_install();
    r = put_fd(j->out, 1, &e);
    if (r == 0)
        r = put_fd(j->err, 2, &e);
    if (r == 0)
        r = set_up_job(j, &s, &e);
    /* From here the socket to the supervisor is gone: the channel takes its number. */
    if (report_ready(j, &s, &e) < 0 || r < 0)
        _exit(127);
    if ((s.nofile && sbx_limits_rlimit(&s, s.nofile, 0, &e) < 0) ||
        put_fd(j->channel, SBX_JOB_CHANNEL, &e) < 0 ||
        (j->snapshot >= 0 && put_fd(j->snapshot, SBX_JOB_SNAPSHOT, &e) < 0) ||
        sbx_fds_close(j->snapshot >= 0 ? SBX_JOB_SNAPSHOT + 1 : SBX_JOB_CHANNEL + 1,
                      &e) < 0)
        _exit(126); /* the host sees a channel that closed before any reply */
}

/* argv and environment of the zygote program, from the plan's words. */
static void collect_words(const struct sbx_plan *p, enum sbx_op_kind kind,
                          const char **words)
{
    unsigned n = 0;

    for (unsigned i = 0; i < p->n_ops && n < MAX_WORDS - 1; i++)
        if (sbx_plan_ops(p)[i].kind == kind)
            words[n++] = sbx_plan_str(p, sbx_plan_ops(p)[i].text);
    words[n] = NULL;
}

int sbx_child_template(const struct sbx_plan *plan, const int *mount_fds,
                       unsigned n_mounts, int zygote_sock, int is_command,
                       int self_exe_fd, struct sbx_err *e)
{
    struct sbx_setup s = {.plan = plan,
                          .mount_fds = mount_fds,
                          .n_mount_fds = n_mounts,
                          .root_fd = -1,
                          .proc_fd = -1,
                          .listener_fd = -1};
    const char *argv[MAX_WORDS], *envp[MAX_WORDS];
    int r;

    (void)setsid(); /* fails only for a group leader, which is as good */
    /* Supplementary groups of root go; an ordinary user's cannot (doctor says so). */
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
        return sbx_fail(e, SBX_STAGE_IDS, 0, errno);
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        return sbx_fail(e, SBX_STAGE_IDS, 0, errno);
    /* One empty session keyring a zygote: the host's is not reachable. Best effort: the
     * user's key quota may be used up; keyctl is denied to jobs in any case. */
    (void)syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return sbx_fail(e, SBX_STAGE_NAMESPACES, 0, errno);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return sbx_fail(e, SBX_STAGE_NNP, 0, errno);
    r = run_ops(&s, e);
    if (r < 0)
        return r;
    if (zygote_sock == SBX_JOB_CHANNEL ? fcntl(zygote_sock, F_SETFD, 0) < 0
                                       : dup3(zygote_sock, SBX_JOB_CHANNEL, 0) < 0)
        return sbx_fail(e, SBX_STAGE_FDS, 0, errno);
    collect_words(plan, SBX_OP_ARG, argv);
    collect_words(plan, SBX_OP_ENV, envp);
    if (!argv[0])
        return sbx_fail(e, SBX_STAGE_EXEC, 0, EINVAL);
    sbx_signals_reset();
    (void)sbx_close_range(SBX_JOB_CHANNEL + 1, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
    if (is_command)
        syscall(SYS_execveat, self_exe_fd, "", argv, envp, AT_EMPTY_PATH);
    else
        execve(argv[0], (char **)argv, (char **)envp);
    return sbx_fail(e, SBX_STAGE_EXEC, 0, errno);
}
