/* zygote.c - see zygote.h. Messages: base/wire.h. */
#include "zygote.h"

#include "../base/io.h"
#include "../base/sys.h"
#include "../base/wire.h"
#include "../child/child.h"
#include "../plan/plan.h"
#include "pools.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

enum { MAX_FORK_FDS = 4 + SBX_MAX_CGROUP_FDS };

struct live_job {
    int pid;
    uint64_t job_id;
};

struct zygote {
    int sock, sigfd, pidns_fd;
    sigset_t old_mask;
    const struct sbx_fork_hooks *hooks;
    struct sbx_pools pools;
    struct live_job *jobs;
    unsigned n_jobs, max_jobs;
};

static int reply(struct zygote *z, uint64_t id, const struct sbx_err *e)
{
    struct sbx_reply msg = {.head = {SBX_MSG_REPLY, 0}, .id = id, .err = *e};

    return sbx_send(z->sock, &msg, sizeof msg, NULL, 0, NULL, 0, 0);
}

static int remember(struct zygote *z, int pid, uint64_t job_id)
{
    if (z->n_jobs == z->max_jobs) {
        unsigned max = z->max_jobs ? z->max_jobs * 2 : 64;
        struct live_job *jobs = reallocarray(z->jobs, max, sizeof *jobs);
        if (!jobs)
            return -ENOMEM;
        z->jobs = jobs;
        z->max_jobs = max;
    }
    z->jobs[z->n_jobs++] = (struct live_job){pid, job_id};
    return 0;
}

static void reap(struct zygote *z)
{
    struct signalfd_siginfo drop;
    struct rusage ru;
    int status, pid;

    while (read(z->sigfd, &drop, sizeof drop) > 0)
        ;
    while ((pid = wait4(-1, &status, WNOHANG, &ru)) > 0)
        for (unsigned i = 0; i < z->n_jobs; i++)
            if (z->jobs[i].pid == pid) {
                struct sbx_exited msg = {
                    .head = {SBX_MSG_EXITED, 0},
                    .job_id = z->jobs[i].job_id,
                    .wait_status = status,
                    .utime_us = sbx_time_us(&ru.ru_utime),
                    .stime_us = sbx_time_us(&ru.ru_stime),
                    .maxrss_kb = (uint64_t)ru.ru_maxrss,
                    .n_faults_minor = (uint64_t)ru.ru_minflt,
                    .n_faults_major = (uint64_t)ru.ru_majflt,
                };
                (void)sbx_send(z->sock, &msg, sizeof msg, NULL, 0, NULL, 0, 0);
                z->jobs[i] = z->jobs[--z->n_jobs];
                break;
            }
}

/* Split the fds of a FORK message. 0 or -EPROTO. */
static int take_fork_fds(const struct sbx_fork *m, const int *fds, unsigned n_fds,
                         struct sbx_job_start *j)
{
    unsigned n = 3 + (m->version != 0);

    if (m->n_cgroup_fds > SBX_MAX_CGROUP_FDS || n_fds != n + m->n_cgroup_fds)
        return -EPROTO;
    j->channel = fds[0];
    j->out = fds[1];
    j->err = fds[2];
    j->snapshot = m->version ? fds[3] : -1;
    j->n_cgroup_fds = m->n_cgroup_fds;
    memcpy(j->cgroup_fds, fds + n, sizeof(int) * m->n_cgroup_fds);
    return 0;
}

/* Returns 1 in the child, else 0 or -errno. */
static int fork_job(struct zygote *z, const struct sbx_fork *m, const int *fds,
                    unsigned n_fds, struct sbx_job_info *info)
{
    struct sbx_forked msg = {.head = {SBX_MSG_FORKED, 0}, .job_id = m->job_id};
    struct sbx_job_start j = {.pool_id = m->pool_id,
                              .job_id = m->job_id,
                              .version = m->version,
                              .uid_index = m->uid_index,
                              .zygote_sock = z->sock};
    int pid = -1, pidfd = -1, r = 0;

    j.plan = sbx_pools_plan(&z->pools, m->pool_id);
    if (!j.plan || take_fork_fds(m, fds, n_fds, &j) < 0)
        r = sbx_fail(&msg.err, SBX_STAGE_PROTOCOL, 0, EPROTO);
    if (r == 0 && unshare(CLONE_NEWPID) < 0)
        r = sbx_fail(&msg.err, SBX_STAGE_NAMESPACES, 0, errno);
    if (r == 0) {
        if (z->hooks)
            z->hooks->before();
        pid = fork();
        if (pid == 0) {
            sigprocmask(SIG_SETMASK, &z->old_mask, NULL);
            *info = (struct sbx_job_info){m->job_id, m->version, m->cpu};
            sbx_pools_keep_only(&z->pools, m->pool_id);
            sbx_child_job(&j);
            return 1;
        }
        if (pid < 0)
            (void)sbx_fail(&msg.err, SBX_STAGE_FORK, 0, errno);
        if (z->hooks)
            z->hooks->after_parent();
        /* Without this the next fork would land in the dead job's namespace (ENOMEM).
         */
        if (setns(z->pidns_fd, CLONE_NEWPID) < 0)
            return -errno;
    }
    if (pid > 0) {
        pidfd = sbx_pidfd_open(pid);
        if (pidfd < 0 || remember(z, pid, m->job_id) < 0) {
            (void)sbx_fail(&msg.err, SBX_STAGE_FORK, 0, pidfd < 0 ? -pidfd : ENOMEM);
            kill(pid, SIGKILL);
        }
    }
    r = sbx_send(z->sock, &msg, sizeof msg, NULL, 0, &pidfd,
                 pidfd >= 0 && msg.err.stage == 0, 0);
    sbx_close(&pidfd);
    return r;
}

/* One message. 0, 1 in a child, -errno on a broken socket, -ESHUTDOWN at its end. */
static int serve_one(struct zygote *z, struct sbx_job_info *info)
{
    union {
        struct sbx_head head;
        struct sbx_pool pool;
        struct sbx_fork fork;
        struct sbx_drop drop;
    } m;
    int fds[1 + SBX_MAX_MOUNTS];
    unsigned n_fds;
    struct sbx_err e = {0};
    ssize_t n =
        sbx_recv(z->sock, &m, sizeof m, fds, sizeof fds / sizeof *fds, &n_fds, 0);
    int r = 0;

    if (n <= 0)
        return n < 0 ? (int)n : -ESHUTDOWN;
    if (n == sizeof m.fork && m.head.type == SBX_MSG_FORK) {
        r = fork_job(z, &m.fork, fds, n_fds, info);
        if (r == 1)
            return 1;
    } else if (n == sizeof m.pool && m.head.type == SBX_MSG_POOL) {
        sbx_pools_add(&z->pools, &m.pool, fds, n_fds, &e);
        r = reply(z, m.pool.pool_id, &e);
    } else if (n == sizeof m.drop && m.head.type == SBX_MSG_DROP_POOL) {
        sbx_pools_drop(&z->pools, m.drop.id);
    } else {
        r = -EPROTO;
    }
    while (n_fds)
        close(fds[--n_fds]);
    return r;
}

int sbx_zygote_serve(int sock, const struct sbx_fork_hooks *hooks,
                     struct sbx_job_info *info)
{
    struct zygote z = {.sock = sock, .hooks = hooks};
    struct sbx_err none = {0};
    sigset_t chld;
    int r;

    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, &z.old_mask);
    z.sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
    z.pidns_fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    r = z.sigfd < 0 || z.pidns_fd < 0 ? -errno : reply(&z, 0, &none);
    while (r == 0) {
        struct pollfd p[2] = {{sock, POLLIN, 0}, {z.sigfd, POLLIN, 0}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            r = -errno;
        if (p[1].revents)
            reap(&z);
        if (r == 0 && p[0].revents)
            r = serve_one(&z, info);
    }
    if (r == 1) /* a job: its table of siblings is nobody's business */
        return 1;
    return r == -ESHUTDOWN ? 0 : r;
}
