/* start.c - the supervisor's first steps, between its clone by the broker and its event
 * loop. */
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "proc.h"
#include "supervisor.h"

static struct sbx_sup sup; /* zero-filled; too big for the stack */

/* Become uid 0 of our namespace, which is no host root, and tie our life to the
 * broker's. Both marks are cleared by an id change (prctl(2)), so they come after it.
 */
static int take_identity(struct sbx_launch *l, struct sbx_err *e)
{
    unsigned char may_use_cg = 0;

    if (read(l->go_fd, &may_use_cg, 1) != 1)
        return sbx_fail(e, SBX_STAGE_IDMAP, 0, EPIPE);
    sbx_close(&l->go_fd);
    if (!may_use_cg)
        l->cg.version = 0, l->cg.have = 0, l->cg.n_dirs = 0;
    /* Inherited by every pid namespace below: no memfd can be executed (6.3;
     * Documentation/mm). Only the real root may, so before the id change; filters of
     * ordinary users demand the seal instead. */
    if (l->is_root)
        (void)sbx_write_file(AT_FDCWD, "/proc/sys/vm/memfd_noexec", "2");
    if (l->is_root && syscall(SYS_setgroups, 0, NULL))
        return sbx_fail(e, SBX_STAGE_IDS, 0, errno);
    if (syscall(SYS_setresgid, 0, 0, 0) || syscall(SYS_setresuid, 0, 0, 0))
        return sbx_fail(e, SBX_STAGE_IDS, 0, errno);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_DUMPABLE, 1))
        return sbx_fail(e, SBX_STAGE_IDS, 0, errno);
    if (sbx_proc_is_dead(l->broker_pidfd))
        _exit(0);
    return 0;
}

static int confine(struct sbx_hello *hello)
{
    struct sbx_err *e = &hello->err;
    /* Over a child's namespace its creator has every capability; these three are for
     * maps of more than one id, which are checked in ours. */
    const uint64_t keep = 1u << CAP_SETUID | 1u << CAP_SETGID | 1ull << CAP_SETFCAP;
    struct rlimit files;
    int r;

    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL))
        return sbx_fail(e, SBX_STAGE_NAMESPACES, 0, errno);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        return sbx_fail(e, SBX_STAGE_PROC, 0, errno);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return sbx_fail(e, SBX_STAGE_NNP, 0, errno);
    r = sbx_proc_landlock_abi();
    if (r < 0)
        return sbx_fail(e, SBX_STAGE_LANDLOCK, 0, r);
    hello->landlock_abi = (uint32_t)r;
    r = sbx_proc_keep_caps(keep);
    return r < 0 ? sbx_fail(e, SBX_STAGE_CAPS, 0, r) : 0;
}

static int watch_all(struct sbx_sup *s)
{
    int r;

    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll_fd < 0)
        return -errno;
    if ((r = sbx_loop_watch(s, s->l->control_fd, EPOLLIN, EV_CONTROL, 0)) ||
        (r = sbx_loop_watch(s, s->l->host_pidfd, EPOLLIN, EV_HOST, 0)))
        return r;
    return sbx_loop_watch(s, s->l->broker_pidfd, EPOLLIN, EV_BROKER, 0);
}

int sbx_supervisor_main(struct sbx_launch *l)
{
    struct sbx_hello hello = {.head = {.type = SBX_MSG_HELLO}};
    int r;

    sup.l = l;
    /* Batch tasks do not preempt who wakes them (sched(7)): without this the host loses
     * its CPU to us, the zygote and the dying job at each call, in the middle of its
     * own work. Inherited by all of them, jobs too: taking the normal policy back at
     * each call cost more than it gave (docs/decisions/0007). */
    (void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    /* As pid 1 only signals with a handler can reach it from inside: there are none. */
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    if (take_identity(l, &hello.err) == 0 && confine(&hello) == 0) {
        r = watch_all(&sup);
        if (r)
            sbx_fail(&hello.err, SBX_STAGE_LAUNCH, 0, r);
    }
    hello.is_root = (uint32_t)l->is_root;
    hello.uid_base = l->uid_base;
    hello.n_uids = l->n_uids;
    hello.cgroup_version = (uint32_t)l->cg.version;
    hello.cgroup_have = l->cg.have;
    hello.supervisor_pid = (uint32_t)getpid();
    r = sbx_send(l->control_fd, &hello, sizeof hello, NULL, 0, NULL, 0, 0);
    if (r || hello.err.stage)
        return 1;
    return sbx_loop_run(&sup);
}
