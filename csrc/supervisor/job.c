/* job.c - the life of one job: fork, ready, start, kill, exit. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "proc.h"
#include "supervisor.h"

enum { CHANNEL_BYTES = 256 * 1024, MAX_EARLY_DEATHS = 3 };
static const uint64_t SETUP_NS = 30000000000ull, UNUSED_NS = 3000000000ull,
                      FIRST_POLL_NS = 10000000, EXIT_NS = 5000000000ull;

/* id = serial * SBX_MAX_JOBS + index */
struct sbx_jb *sbx_job_find(struct sbx_sup *s, uint64_t id)
{
    struct sbx_jb *j = &s->jobs[id % SBX_MAX_JOBS];

    return id && j->state != JOB_FREE && j->id == id ? j : NULL;
}

/* A job of that zygote: ids can be guessed. */
static struct sbx_jb *find_of(struct sbx_sup *s, const struct sbx_tmpl *t, uint64_t id)
{
    struct sbx_jb *j = sbx_job_find(s, id);

    return j && j->tmpl == t ? j : NULL;
}

static struct sbx_jb *new_job(struct sbx_sup *s, struct sbx_plc *p)
{
    for (unsigned i = 0; i < SBX_MAX_JOBS; i++) {
        struct sbx_jb *j = &s->jobs[i];
        if (j->state != JOB_FREE)
            continue;
        memset(j, 0, offsetof(struct sbx_jb, denied));
        j->id = ++s->last_serial * SBX_MAX_JOBS + i;
        j->state = JOB_FORKING;
        j->pool = p;
        j->tmpl = p->tmpl;
        j->version = p->version;
        j->pidfd = j->channel_fd = j->out_fd = j->err_fd = j->listener_fd = -1;
        j->deadline_ns = j->next_poll_ns = j->exit_ns = SBX_NEVER;
        j->setup_deadline_ns = sbx_now_ns() + SETUP_NS;
        if (i >= s->max_job)
            s->max_job = i + 1;
        p->n_jobs++;
        p->n_waiting++;
        j->is_counted = 1;
        return j;
    }
    return NULL;
}

/* Started, killed or dead: the pool may make another. */
static void set_not_waiting(struct sbx_jb *j)
{
    if (j->is_counted)
        j->pool->n_waiting--;
    j->is_counted = 0;
}

/* Close and forget; processes are dead (or were never born). */
static void free_job(struct sbx_sup *s, struct sbx_jb *j)
{
    struct sbx_plc *p = j->pool;

    set_not_waiting(j);
    sbx_close(&j->pidfd);
    sbx_close(&j->channel_fd);
    sbx_close(&j->out_fd);
    sbx_close(&j->err_fd);
    sbx_loop_close(s, &j->listener_fd);
    if (j->slot)
        sbx_slot_put(&s->l->cg, j->slot);
    j->slot = NULL;
    j->state = JOB_FREE;
    j->pool = NULL;
    sbx_pool_release(s, p);
}

static void finish(struct sbx_sup *s, struct sbx_jb *j, struct sbx_exit *m)
{
    m->head.type = SBX_MSG_WAIT;
    m->job_id = j->id;
    m->cause = j->cause;
    m->wall_ns = j->start_ns ? sbx_now_ns() - j->start_ns : 0;
    m->n_denied = j->n_denied;
    memcpy(m->denied, j->denied, sizeof m->denied[0] * j->n_denied);
    for (unsigned i = 0; i < j->n_waiters; i++) {
        sbx_send(j->waiters[i], m, sizeof *m, NULL, 0, NULL, 0, MSG_DONTWAIT);
        sbx_close(&j->waiters[i]);
    }
    s->exits[s->n_exits++ % SBX_N_EXITS] = *m;
    free_job(s, j);
}

/* A sandbox that could not be completed: the host learns it on the pool socket. */
static void fail_setup(struct sbx_jb *j, const struct sbx_err *e)
{
    if (!j->is_published)
        sbx_pool_refuse(j->pool, j->id, e);
    j->is_published = 1; /* at most one message a job */
}

static int make_fds(struct sbx_jb *j, int theirs[3], struct sbx_err *e)
{
    const struct timeval patience = {.tv_sec = 2};
    int pair[2], out[2], err[2], size = CHANNEL_BYTES;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return sbx_fail(e, SBX_STAGE_FORK, 0, errno);
    j->channel_fd = pair[0];
    theirs[0] = pair[1];
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    /* A job that does not read must not hold a host thread in send for ever. */
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (pipe2(out, O_CLOEXEC))
        return sbx_fail(e, SBX_STAGE_FORK, 0, errno);
    j->out_fd = out[0];
    theirs[1] = out[1];
    if (pipe2(err, O_CLOEXEC))
        return sbx_fail(e, SBX_STAGE_FORK, 0, errno);
    j->err_fd = err[0];
    theirs[2] = err[1];
    return 0;
}

static int get_slot(struct sbx_sup *s, struct sbx_jb *j, struct sbx_err *e)
{
    const struct sbx_pool *d = &j->pool->def;
    struct sbx_cg_limits limits = {d->memory_bytes, d->cpu_quota_us, d->processes};
    int err = 0;

    if (!s->l->cg.version)
        return 0;
    j->slot = sbx_slot_get(&s->l->cg, &limits, &err);
    return j->slot || !d->want_cgroup ? 0 : sbx_fail(e, SBX_STAGE_CGROUP, 0, err);
}

static int send_fork(struct sbx_jb *j, const int theirs[3], struct sbx_err *e)
{
    struct sbx_plc *p = j->pool;
    struct sbx_fork m = {.head = {.type = SBX_MSG_FORK},
                         .pool_id = p->def.pool_id,
                         .job_id = j->id,
                         .version = j->version,
                         .uid_index = p->def.uid_index,
                         .cpu = p->cpu};
    int fds[4 + SBX_MAX_CGROUP_FDS];
    unsigned n = 3;
    int r;

    memcpy(fds, theirs, 3 * sizeof *fds);
    if (m.version)
        fds[n++] = p->snapshot_fd;
    m.n_cgroup_fds = j->slot ? j->slot->n_attach : 0;
    for (unsigned i = 0; i < m.n_cgroup_fds; i++)
        fds[n++] = j->slot->attach_fds[i];
    r = sbx_send(p->tmpl->sock, &m, sizeof m, NULL, 0, fds, n, MSG_DONTWAIT);
    if (r) /* a zygote that just died is no other case than one that dies now */
        return sbx_fail(e, SBX_STAGE_FORK, 0, r == -EPIPE ? ECHILD : r);
    sbx_template_forking(p->tmpl, j->id);
    return 0;
}

int sbx_job_fork(struct sbx_sup *s, struct sbx_plc *p)
{
    int theirs[3] = {-1, -1, -1};
    struct sbx_err e = {0};
    struct sbx_jb *j = new_job(s, p);

    if (!j) {
        sbx_fail(&e, SBX_STAGE_FORK, 0, EAGAIN);
        sbx_pool_refuse(p, 0, &e);
        return -e.err;
    }
    if (make_fds(j, theirs, &e) == 0 && get_slot(s, j, &e) == 0)
        send_fork(j, theirs, &e);
    for (int i = 0; i < 3; i++)
        sbx_close(&theirs[i]);
    if (e.stage) {
        fail_setup(j, &e);
        free_job(s, j);
        return -e.err;
    }
    return 0;
}

void sbx_job_forked(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_forked *m,
                    int *pidfd)
{
    struct sbx_jb *j = find_of(s, t, m->job_id);
    int r;

    if (!j || j->pidfd >= 0)
        return;
    if (m->err.stage || *pidfd < 0) {
        struct sbx_err e = m->err;
        sbx_fail(&e, SBX_STAGE_FORK, 0, EPROTO);
        fail_setup(j, &e);
        free_job(s, j);
        return;
    }
    /* Whatever else it may be: with it the job could not be killed. */
    r = sbx_pidfd_kill(*pidfd, 0);
    if (r && r != -ESRCH) {
        sbx_template_drop(s, t);
        return;
    }
    j->pidfd = steal_fd(pidfd);
    if (j->is_killed)
        sbx_pidfd_kill(j->pidfd, SIGKILL);
}

void sbx_job_ready(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_ready *m,
                   int *listener)
{
    struct sbx_jb *j = find_of(s, t, m->job_id);

    if (!j || j->state != JOB_FORKING)
        return;
    if (m->err.stage) {
        fail_setup(j, &m->err); /* its EXITED follows */
        return;
    }
    if (m->has_listener)
        sbx_notify_add(s, j, listener);
    j->setup_deadline_ns = SBX_NEVER;
    j->state = JOB_WAITING;
    if (!j->is_killed)
        sbx_pool_publish(s, j->pool, j);
}

void sbx_job_start(struct sbx_sup *s, const struct sbx_start *m)
{
    struct sbx_jb *j = sbx_job_find(s, m->job_id);

    if (j && j->state == JOB_RUNNING && !j->is_killed)
        j->deadline_ns = m->deadline_ns;
    if (!j || j->state != JOB_WAITING || !j->is_published)
        return;
    set_not_waiting(j);
    j->state = JOB_RUNNING;
    j->start_ns = m->start_ns;
    j->deadline_ns = m->deadline_ns;
    j->next_poll_ns = m->start_ns + FIRST_POLL_NS;
    sbx_pool_started(s, j->pool);
}

void sbx_job_kill(struct sbx_jb *j, enum sbx_cause cause)
{
    if (cause > j->cause)
        j->cause = cause;
    if (!j->is_killed)
        j->exit_ns = sbx_now_ns() + EXIT_NS;
    j->is_killed = 1;
    set_not_waiting(j);
    j->deadline_ns = j->setup_deadline_ns = SBX_NEVER;
    if (j->pidfd >= 0)
        sbx_pidfd_kill(j->pidfd, SIGKILL);
}

void sbx_job_expire(struct sbx_jb *j, uint64_t now_ns)
{
    set_not_waiting(j);
    j->deadline_ns = now_ns + UNUSED_NS;
}

/* Who waited for a time that is over has closed its end: its place is free again. */
static void forget_gone_waiters(struct sbx_jb *j)
{
    unsigned n = 0;

    for (unsigned i = 0; i < j->n_waiters; i++) {
        struct pollfd p = {j->waiters[i], 0, 0};
        if (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)))
            sbx_close(&j->waiters[i]);
        else
            j->waiters[n++] = j->waiters[i];
    }
    j->n_waiters = n;
}

void sbx_job_wait(struct sbx_sup *s, uint64_t id, int reply_fd, int is_stat)
{
    struct sbx_jb *j = sbx_job_find(s, id);
    struct sbx_exit m = {.head = {.type = SBX_MSG_WAIT},
                         .job_id = id,
                         .cause = SBX_CAUSE_LOST};

    if (j && !is_stat && j->n_waiters == SBX_MAX_WAITERS)
        forget_gone_waiters(j);
    if (j && !is_stat && j->n_waiters < SBX_MAX_WAITERS) {
        j->waiters[j->n_waiters++] = reply_fd;
        return;
    }
    if (j) {
        m.is_alive = 1;
        m.cause = j->cause;
        m.wall_ns = j->start_ns ? sbx_now_ns() - j->start_ns : 0;
        sbx_poll_fill(s, j, &m);
    }
    for (unsigned i = 0; !j && i < SBX_N_EXITS && i < s->n_exits; i++) {
        const struct sbx_exit *x = &s->exits[(s->n_exits - 1 - i) % SBX_N_EXITS];
        if (x->job_id == id) {
            m = *x;
            break;
        }
    }
    sbx_send(reply_fd, &m, sizeof m, NULL, 0, NULL, 0, MSG_DONTWAIT);
    sbx_close(&reply_fd);
}

void sbx_job_exited(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_exited *m)
{
    struct sbx_jb *j = find_of(s, t, m->job_id);
    struct sbx_exit x = {.wait_status = m->wait_status,
                         .utime_us = m->utime_us,
                         .stime_us = m->stime_us,
                         .peak_memory_bytes = m->maxrss_kb * 1024};
    struct sbx_err e = {0};

    if (!j)
        return;
    sbx_poll_fill(s, j, &x);
    if (WIFSIGNALED(m->wait_status) && j->cause == SBX_CAUSE_EXITED)
        j->cause = SBX_CAUSE_SIGNALED;
    if (!j->is_published && !j->is_killed) { /* died in set-up without a word */
        sbx_fail(&e, SBX_STAGE_FORK, 0, ECHILD);
        fail_setup(j, &e);
    }
    /* A worker that cannot even wait must not be forked for ever. A short call that the
     * host never announced by START ends with status 0. */
    if (m->wait_status == 0)
        j->pool->n_early_deaths = 0;
    else if (j->state != JOB_RUNNING && !j->is_killed &&
             ++j->pool->n_early_deaths >= MAX_EARLY_DEATHS)
        j->pool->is_paused = 1;
    finish(s, j, &x);
    sbx_pool_refill(s, t);
}

void sbx_job_lost(struct sbx_sup *s, struct sbx_jb *j)
{
    struct sbx_exit x = {0};

    if (j->pidfd >= 0)
        sbx_pidfd_kill(j->pidfd, SIGKILL);
    sbx_poll_fill(s, j, &x);
    j->cause = SBX_CAUSE_LOST;
    finish(s, j, &x);
}

/* Killed a while ago. A zygote that does not tell of a dead job is stopped, hangs, or
 * was taken over: somebody waits for that word, and the job may not be what died. */
static void look_after(struct sbx_sup *s, struct sbx_jb *j, uint64_t now_ns)
{
    if (j->pidfd >= 0 && sbx_proc_is_dead(j->pidfd) &&
        j->tmpl->state == TEMPLATE_SERVING)
        sbx_template_drop(s, j->tmpl);
    j->exit_ns = now_ns + EXIT_NS;
}

uint64_t sbx_job_tick(struct sbx_sup *s, uint64_t now_ns)
{
    uint64_t next = SBX_NEVER;

    for (unsigned i = 0; i < s->max_job; i++) {
        struct sbx_jb *j = &s->jobs[i];
        if (j->state == JOB_FREE)
            continue;
        if (j->state == JOB_FORKING && j->setup_deadline_ns <= now_ns) {
            struct sbx_err e = {0};
            sbx_fail(&e, SBX_STAGE_FORK, 0, ETIMEDOUT);
            fail_setup(j, &e);
            sbx_job_kill(j, SBX_CAUSE_TIMEOUT);
        }
        if (j->state == JOB_RUNNING && j->deadline_ns <= now_ns)
            sbx_job_kill(j, SBX_CAUSE_TIMEOUT);
        if (j->state == JOB_WAITING && j->deadline_ns <= now_ns)
            sbx_job_kill(j, SBX_CAUSE_CANCELLED);
        if (j->state == JOB_RUNNING && !j->is_killed && j->next_poll_ns <= now_ns)
            sbx_poll_job(s, j, now_ns);
        if (j->exit_ns <= now_ns)
            look_after(s, j, now_ns);
        uint64_t t = j->state == JOB_FORKING ? j->setup_deadline_ns : j->deadline_ns;
        if (j->state == JOB_RUNNING && !j->is_killed && j->next_poll_ns < t)
            t = j->next_poll_ns;
        t = j->exit_ns < t ? j->exit_ns : t;
        next = t < next ? t : next;
    }
    return next;
}
