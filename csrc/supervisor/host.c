/* host.c - what the host asks on the control socket. The host is trusted; its messages
 * are still checked for size and descriptors, since a mistake here would end every
 * sandbox. */
#include <string.h>
#include <sys/socket.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "supervisor.h"

enum { MAX_FDS = SBX_MAX_MOUNTS + 3 };

union request {
    struct sbx_head head;
    struct sbx_template template;
    struct sbx_pool pool;
    struct sbx_snapshot snapshot;
    struct sbx_grow grow;
    struct sbx_start start;
    struct sbx_kill kill;
    struct sbx_wait wait;
    struct sbx_drop drop;
    char bytes[4096];
};

static size_t size_of(uint32_t type)
{
    switch (type) {
    case SBX_MSG_TEMPLATE: return sizeof(struct sbx_template);
    case SBX_MSG_POOL: return sizeof(struct sbx_pool);
    case SBX_MSG_SNAPSHOT: return sizeof(struct sbx_snapshot);
    case SBX_MSG_GROW: return sizeof(struct sbx_grow);
    case SBX_MSG_START: return sizeof(struct sbx_start);
    case SBX_MSG_KILL: return sizeof(struct sbx_kill);
    case SBX_MSG_WAIT:
    case SBX_MSG_STAT: return sizeof(struct sbx_wait);
    case SBX_MSG_DROP_POOL:
    case SBX_MSG_DROP_TEMPLATE: return sizeof(struct sbx_drop);
    case SBX_MSG_STOP: return sizeof(struct sbx_head);
    default: return SIZE_MAX;
    }
}

static void close_all(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sbx_close(&fds[i]);
}

static void snapshot(struct sbx_sup *s, const struct sbx_snapshot *m, int *fds,
                     unsigned n_fds)
{
    struct sbx_plc *p = sbx_pool_find(s, m->pool_id);

    if (!p || n_fds > 1)
        return;
    sbx_close(&p->snapshot_fd);
    p->snapshot_fd = n_fds ? steal_fd(&fds[0]) : -1;
    p->version = n_fds ? m->version : 0;
    sbx_pool_resume(s, p);
}

static void grow(struct sbx_sup *s, const struct sbx_grow *m)
{
    struct sbx_plc *p = sbx_pool_find(s, m->pool_id);
    uint32_t n;

    if (!p)
        return;
    n = sbx_pool_serve(s, p, m->count < SBX_MAX_JOBS ? m->count : SBX_MAX_JOBS);
    p->n_extra = p->n_extra + n < SBX_MAX_JOBS ? p->n_extra + n : SBX_MAX_JOBS;
    sbx_pool_resume(s, p);
}

/* Messages whose last fd is the reply socket. */
static int has_reply(uint32_t type)
{
    return type == SBX_MSG_TEMPLATE || type == SBX_MSG_POOL || type == SBX_MSG_WAIT ||
           type == SBX_MSG_STAT;
}

static int act(struct sbx_sup *s, union request *m, int *fds, unsigned n_fds,
               int *reply)
{
    struct sbx_err e = {0};
    struct sbx_jb *j;

    switch (m->head.type) {
    case SBX_MSG_TEMPLATE:
        if (m->template.n_mounts > SBX_MAX_MOUNTS || n_fds != 1 + m->template.n_mounts)
            break;
        sbx_template_start(s, &m->template, fds, steal_fd(reply));
        return 0;
    case SBX_MSG_POOL:
        if (m->pool.n_mounts > SBX_MAX_MOUNTS || n_fds != 2 + m->pool.n_mounts)
            break;
        sbx_pool_open(s, &m->pool, fds, steal_fd(&fds[n_fds - 1]), steal_fd(reply));
        return 0;
    case SBX_MSG_SNAPSHOT: snapshot(s, &m->snapshot, fds, n_fds); return 0;
    case SBX_MSG_GROW: grow(s, &m->grow); return 0;
    case SBX_MSG_START: sbx_job_start(s, &m->start); return 0;
    case SBX_MSG_KILL:
        if ((j = sbx_job_find(s, m->kill.job_id))) {
            j->pool->cpu = m->kill.cpu;
            sbx_job_kill(j, m->kill.cause < SBX_CAUSE_LOST ? m->kill.cause
                                                           : SBX_CAUSE_CANCELLED);
        }
        return 0;
    case SBX_MSG_WAIT:
    case SBX_MSG_STAT:
        sbx_job_wait(s, m->wait.job_id, steal_fd(reply), m->head.type == SBX_MSG_STAT);
        return 0;
    case SBX_MSG_DROP_POOL: {
        struct sbx_plc *p = sbx_pool_find(s, m->drop.id);
        if (p)
            sbx_pool_drop(s, p);
        return 0;
    }
    case SBX_MSG_DROP_TEMPLATE: {
        struct sbx_tmpl *t = sbx_template_find(s, m->drop.id);
        if (t)
            sbx_template_drop(s, t);
        return 0;
    }
    case SBX_MSG_STOP: return -EPIPE;
    }
    sbx_fail(&e, SBX_STAGE_PROTOCOL, m->head.type, EPROTO);
    sbx_loop_reply(reply, 0, &e);
    return 0;
}

int sbx_host_serve(struct sbx_sup *s)
{
    static union request m;
    int fds[MAX_FDS], reply = -1;
    unsigned n_fds;
    ssize_t n =
        sbx_recv(s->l->control_fd, &m, sizeof m, fds, MAX_FDS, &n_fds, MSG_DONTWAIT);
    int r = 0;

    if (n == -EAGAIN || n == -EMSGSIZE || n == -EMFILE)
        return 0;
    if (n <= 0)
        return -EPIPE;
    unsigned n_all = n_fds;
    if ((size_t)n >= sizeof m.head && has_reply(m.head.type) && n_fds)
        reply = steal_fd(&fds[--n_fds]);
    if ((size_t)n >= sizeof m.head && (size_t)n == size_of(m.head.type)) {
        r = act(s, &m, fds, n_fds, &reply);
    } else {
        struct sbx_err e = {0};
        sbx_fail(&e, SBX_STAGE_PROTOCOL, 0, EPROTO);
        sbx_loop_reply(&reply, 0, &e);
    }
    close_all(fds, n_all);
    sbx_close(&reply);
    return r;
}
