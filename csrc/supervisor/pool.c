/* pool.c - pools: refill policy, publication. */
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "supervisor.h"

struct sbx_plc *sbx_pool_find(struct sbx_sup *s, uint64_t id)
{
    for (unsigned i = 0; i < SBX_MAX_POOLS; i++) {
        struct sbx_plc *p = &s->pools[i];
        if ((p->state == POOL_OPENING || p->state == POOL_OPEN) && p->def.pool_id == id)
            return p;
    }
    return NULL;
}

static void free_pool(struct sbx_sup *s, struct sbx_plc *p)
{
    sbx_loop_close(s, &p->sock);
    sbx_close(&p->reply_fd);
    sbx_close(&p->snapshot_fd);
    p->state = POOL_FREE;
}

void sbx_pool_open(struct sbx_sup *s, const struct sbx_pool *m, int *fds, int sock,
                   int reply_fd)
{
    struct sbx_tmpl *t = sbx_template_find(s, m->template_id);
    struct sbx_plc *p = NULL;
    struct sbx_err e = {0};
    int r;

    for (unsigned i = 0; i < SBX_MAX_POOLS && !p; i++)
        if (s->pools[i].state == POOL_FREE)
            p = &s->pools[i];
    if (!t) {
        /* The same words as when it dies a moment later: the host starts another. */
        sbx_fail(&e, SBX_STAGE_FORK, 0, ECHILD);
    } else if (!p || sbx_pool_find(s, m->pool_id)) {
        sbx_fail(&e, SBX_STAGE_PROTOCOL, 0, !p ? ENOSPC : EEXIST);
    } else if (m->want_cgroup & ~s->l->cg.have) {
        sbx_fail(&e, SBX_STAGE_CGROUP, 0, ENOTSUP);
    } else if (m->uid_index >= s->l->n_uids) {
        sbx_fail(&e, SBX_STAGE_IDS, 0, EINVAL);
    } else if ((r = sbx_send(t->sock, m, sizeof *m, NULL, 0, fds, 1 + m->n_mounts,
                             MSG_DONTWAIT))) {
        sbx_fail(&e, SBX_STAGE_FORK, 0, r == -EPIPE ? ECHILD : r);
    }
    if (e.stage) {
        sbx_close(&sock);
        sbx_loop_reply(&reply_fd, m->pool_id, &e);
        return;
    }
    *p = (struct sbx_plc){.state = POOL_OPENING,
                          .def = *m,
                          .serial = ++s->last_serial,
                          .tmpl = t,
                          .sock = sock,
                          .reply_fd = reply_fd,
                          .snapshot_fd = -1};
}

void sbx_pool_answered(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_reply *m)
{
    struct sbx_plc *p = sbx_pool_find(s, m->id);

    if (!p || p->tmpl != t || p->state != POOL_OPENING)
        return;
    sbx_loop_reply(&p->reply_fd, p->def.pool_id, &m->err);
    if (m->err.stage) {
        free_pool(s, p);
        return;
    }
    p->state = POOL_OPEN;
    /* no EPOLLIN: nothing is read here */
    sbx_loop_watch(s, p->sock, EPOLLRDHUP, EV_POOL, p->serial);
}

/* A fork right after START would take the CPU from the call that just began. A call
 * that finds the pool empty meanwhile says so (GROW) and does not wait for this. */
static const uint64_t REFILL_DELAY_NS = 1000000;
static const uint64_t RETRY_NS = 5000000;

/* THE policy: how many sandboxes this pool should start now. Whatever a waiting call
 * asked for first (GROW); else as many as are missing. At most one fork is under way
 * per zygote, so a burst of STARTs is served one fork after the other between other
 * events. */
static uint32_t n_wanted(const struct sbx_plc *p, uint64_t now_ns)
{
    if (p->state != POOL_OPEN)
        return 0;
    if (p->n_extra)
        return p->n_extra;
    return !p->is_paused && p->refill_ns <= now_ns && p->n_waiting < p->def.n_waiting
               ? p->def.n_waiting - p->n_waiting
               : 0;
}

void sbx_pool_refill(struct sbx_sup *s, struct sbx_tmpl *t)
{
    struct sbx_plc *best = NULL;
    uint64_t now = sbx_now_ns();

    if (t->state != TEMPLATE_SERVING || t->forking_job)
        return;
    for (unsigned i = 0; i < SBX_MAX_POOLS; i++) {
        struct sbx_plc *p = &s->pools[i];
        if (p->state == POOL_OPEN && p->tmpl == t && n_wanted(p, now) &&
            (!best || (p->n_extra && !best->n_extra) ||
             (!p->n_extra == !best->n_extra && p->n_waiting < best->n_waiting)))
            best = p;
    }
    if (!best)
        return;
    if (best->n_extra)
        best->n_extra--;
    sbx_job_fork(s, best);
}

void sbx_pool_resume(struct sbx_sup *s, struct sbx_plc *p)
{
    p->is_paused = 0;
    p->n_early_deaths = 0;
    sbx_pool_refill(s, p->tmpl);
}

void sbx_pool_started(struct sbx_sup *s, struct sbx_plc *p)
{
    p->refill_ns = sbx_now_ns() + REFILL_DELAY_NS;
    sbx_pool_resume(s, p); /* others of this zygote may be due */
}

static uint32_t publish_kept(struct sbx_sup *s, struct sbx_plc *p, uint32_t n);

uint64_t sbx_pool_tick(struct sbx_sup *s, uint64_t now_ns)
{
    uint64_t next = SBX_NEVER;

    for (unsigned i = 0; i < SBX_MAX_POOLS; i++) {
        struct sbx_plc *p = &s->pools[i];
        if (p->state == POOL_OPEN && p->retry_ns && p->retry_ns <= now_ns) {
            p->retry_ns = 0;
            publish_kept(s, p, UINT32_MAX);
        }
        if (p->state == POOL_OPEN && p->retry_ns && p->retry_ns < next)
            next = p->retry_ns;
        if (p->state != POOL_OPEN || p->is_paused || p->n_waiting >= p->def.n_waiting)
            continue;
        if (p->refill_ns <= now_ns)
            sbx_pool_refill(s, p->tmpl); /* may do nothing: FORKED comes back to it */
        else if (p->refill_ns < next)
            next = p->refill_ns;
    }
    return next;
}

/* Descriptors in unread messages count against every process of this user (unix(7),
 * ETOOMANYREFS): beyond this many sandboxes a pool keeps its own here until a call asks
 * for one (GROW). Started by root, jobs have users of their own. */
static unsigned max_unread(const struct sbx_sup *s)
{
    return s->l->is_root ? 400 : 40;
}

static unsigned n_unread(const struct sbx_sup *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->max_job; i++)
        n += s->jobs[i].state == JOB_WAITING && s->jobs[i].is_published;
    return n;
}

void sbx_pool_refuse(struct sbx_plc *p, uint64_t job_id, const struct sbx_err *e)
{
    struct sbx_pub m = {.head = {.type = SBX_MSG_POOL},
                        .pool_id = p->def.pool_id,
                        .job_id = job_id,
                        .err = *e};

    /* If this does not fit, the host still sees its GROW unanswered and asks again. */
    if (p->state != POOL_DROPPED)
        (void)sbx_send(p->sock, &m, sizeof m, NULL, 0, NULL, 0, MSG_DONTWAIT);
    if (p->n_owed)
        p->n_owed--;
    p->is_paused = 1;
}

void sbx_pool_publish(struct sbx_sup *s, struct sbx_plc *p, struct sbx_jb *j)
{
    struct sbx_pub m = {.head = {.type = SBX_MSG_POOL},
                        .pool_id = p->def.pool_id,
                        .job_id = j->id,
                        .version = j->version};
    int fds[3] = {j->channel_fd, j->out_fd, j->err_fd};

    if (!p->n_owed && n_unread(s) >= max_unread(s))
        return;
    int r = p->state == POOL_DROPPED
                ? -EPIPE
                : sbx_send(p->sock, &m, sizeof m, NULL, 0, fds, 3, MSG_DONTWAIT);

    if (r == -EAGAIN) {
        sbx_loop_rewatch(s, p->sock, EPOLLRDHUP | EPOLLOUT, EV_POOL, p->serial);
        return;
    }
    if (r == -ETOOMANYREFS || r == -ENOBUFS) { /* EPOLLOUT would say "now" at once */
        p->retry_ns = sbx_now_ns() + RETRY_NS;
        return;
    }
    if (p->n_owed)
        p->n_owed--;
    j->is_published = 1;
    sbx_close(&j->channel_fd);
    sbx_close(&j->out_fd);
    sbx_close(&j->err_fd);
    if (r)
        sbx_job_kill(j, SBX_CAUSE_CANCELLED);
}

/* Publish up to `n` complete sandboxes of the pool that are kept here, until its queue
 * is full. Returns how many of the `n` are not there. */
static uint32_t publish_kept(struct sbx_sup *s, struct sbx_plc *p, uint32_t n)
{
    for (unsigned i = 0; i < s->max_job && n; i++) {
        struct sbx_jb *j = &s->jobs[i];
        if (j->state != JOB_WAITING || j->pool != p || j->is_published || j->is_killed)
            continue;
        n--;
        sbx_pool_publish(s, p, j);
        if (!j->is_published)
            break; /* the queue is full: EPOLLOUT goes on */
    }
    return n;
}

uint32_t sbx_pool_serve(struct sbx_sup *s, struct sbx_plc *p, uint32_t n)
{
    p->n_owed += n;
    return publish_kept(s, p, n);
}

void sbx_pool_hung_up(struct sbx_sup *s, uint64_t serial, uint32_t events)
{
    struct sbx_plc *p = NULL;

    for (unsigned i = 0; i < SBX_MAX_POOLS && !p; i++)
        if (s->pools[i].state == POOL_OPEN && s->pools[i].serial == serial)
            p = &s->pools[i];
    if (!p)
        return;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        sbx_pool_drop(s, p); /* nobody can take its sandboxes any more */
    } else if (events & EPOLLOUT) {
        sbx_loop_rewatch(s, p->sock, EPOLLRDHUP, EV_POOL, p->serial);
        publish_kept(s, p, UINT32_MAX);
    }
}

void sbx_pool_drop(struct sbx_sup *s, struct sbx_plc *p)
{
    struct sbx_drop m = {.head = {.type = SBX_MSG_DROP_POOL}, .id = p->def.pool_id};

    sbx_send(p->tmpl->sock, &m, sizeof m, NULL, 0, NULL, 0, MSG_DONTWAIT);
    p->state = POOL_DROPPED;
    sbx_loop_close(s, &p->sock);
    sbx_close(&p->reply_fd);
    sbx_close(&p->snapshot_fd);
    for (unsigned i = 0; i < s->max_job; i++) {
        struct sbx_jb *j = &s->jobs[i];
        if (j->pool != p || (j->state != JOB_FORKING && j->state != JOB_WAITING))
            continue;
        /* A published one may run a short call of another host thread by now. Unused,
         * it ends by itself when the host closes its channel. */
        if (j->is_published && j->state == JOB_WAITING)
            sbx_job_expire(j, sbx_now_ns());
        else
            sbx_job_kill(j, SBX_CAUSE_CANCELLED);
    }
    if (!p->n_jobs)
        free_pool(s, p);
}

void sbx_pool_release(struct sbx_sup *s, struct sbx_plc *p)
{
    if (--p->n_jobs == 0 && p->state == POOL_DROPPED)
        free_pool(s, p);
}

void sbx_pool_lost(struct sbx_sup *s, struct sbx_plc *p)
{
    struct sbx_pub m = {.head = {.type = SBX_MSG_POOL}, .pool_id = p->def.pool_id};

    sbx_fail(&m.err, SBX_STAGE_FORK, 0, ECHILD);
    sbx_loop_reply(&p->reply_fd, p->def.pool_id, &m.err);
    if (p->sock >= 0)
        sbx_send(p->sock, &m, sizeof m, NULL, 0, NULL, 0, MSG_DONTWAIT);
    free_pool(s, p); /* its end of the socket closes: whatever the host misses here, it
                        sees that */
}
