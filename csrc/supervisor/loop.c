/* loop.c - the supervisor's event loop: wait, then one action per event. */
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "supervisor.h"

enum { N_EVENTS = 64 };

static int ctl(struct sbx_sup *s, int op, int fd, uint32_t events,
               enum sbx_event_kind kind, uint64_t id)
{
    struct epoll_event ev = {.events = events,
                             .data.u64 =
                                 (uint64_t)kind << 56 | (id & ((1ull << 56) - 1))};

    return epoll_ctl(s->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

int sbx_loop_watch(struct sbx_sup *s, int fd, uint32_t events, enum sbx_event_kind kind,
                   uint64_t id)
{
    return ctl(s, EPOLL_CTL_ADD, fd, events, kind, id);
}

int sbx_loop_rewatch(struct sbx_sup *s, int fd, uint32_t events,
                     enum sbx_event_kind kind, uint64_t id)
{
    return ctl(s, EPOLL_CTL_MOD, fd, events, kind, id);
}

void sbx_loop_close(struct sbx_sup *s, int *fd)
{
    if (*fd >= 0)
        epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
    sbx_close(fd);
}

void sbx_loop_reply(int *reply_fd, uint64_t id, const struct sbx_err *e)
{
    struct sbx_reply m = {.head = {.type = SBX_MSG_REPLY}, .id = id, .err = *e};

    if (*reply_fd >= 0)
        sbx_send(*reply_fd, &m, sizeof m, NULL, 0, NULL, 0, MSG_DONTWAIT);
    sbx_close(reply_fd);
}

/* 0, or 1 to end. */
static int dispatch(struct sbx_sup *s, const struct epoll_event *ev)
{
    uint64_t id = ev->data.u64 & ((1ull << 56) - 1);

    switch ((enum sbx_event_kind)(ev->data.u64 >> 56)) {
    case EV_CONTROL: return sbx_host_serve(s) < 0;
    case EV_HOST:
    case EV_BROKER: return 1;
    case EV_ZYGOTE: sbx_template_serve(s, id); break;
    case EV_ZYGOTE_PID: sbx_template_died(s, id); break;
    case EV_POOL: sbx_pool_hung_up(s, id, ev->events); break;
    case EV_LISTENER: sbx_notify_serve(s, id, ev->events); break;
    }
    return 0;
}

/* Do what is due, return the time of the next thing. */
static uint64_t tick(struct sbx_sup *s)
{
    uint64_t now = sbx_now_ns(), next = sbx_job_tick(s, now), t;

    t = sbx_template_tick(s, now);
    next = t < next ? t : next;
    t = sbx_pool_tick(s, now);
    next = t < next ? t : next;
    t = s->l->cg.version ? sbx_slot_tick(&s->l->cg, now) : 0;
    return t && t < next ? t : next;
}

static int timeout_ms(uint64_t next_ns)
{
    uint64_t now = sbx_now_ns();

    if (next_ns == SBX_NEVER)
        return -1;
    if (next_ns <= now)
        return 0;
    uint64_t ms = (next_ns - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

int sbx_loop_run(struct sbx_sup *s)
{
    struct epoll_event ev[N_EVENTS];

    for (;;) {
        int n = epoll_wait(s->epoll_fd, ev, N_EVENTS, timeout_ms(tick(s)));
        if (n < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < n; i++)
            if (dispatch(s, &ev[i]))
                return 0; /* as pid 1: everything below dies now */
        /* Pid 1 inherits orphans; zygotes themselves are seen by their pidfd first. */
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
