/* template.c - zygotes: start, messages, death. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "../child/child.h"
#include "../plan/plan.h"
#include "proc.h"
#include "supervisor.h"

/* Imports of a big template on a slow disk take their time; a zygote never needs this
 * long to fork. */
static const uint64_t START_NS = 120000000000ull, FORK_NS = 30000000000ull;
enum { SOCK_BYTES = 1 << 20 };

struct sbx_tmpl *sbx_template_find(struct sbx_sup *s, uint64_t id)
{
    for (unsigned i = 0; i < SBX_MAX_TEMPLATES; i++)
        if ((s->templates[i].state == TEMPLATE_STARTING ||
             s->templates[i].state == TEMPLATE_SERVING) &&
            s->templates[i].id == id)
            return &s->templates[i];
    return NULL;
}

static struct sbx_tmpl *by_serial(struct sbx_sup *s, uint64_t serial)
{
    for (unsigned i = 0; i < SBX_MAX_TEMPLATES; i++)
        if (s->templates[i].state != TEMPLATE_FREE && s->templates[i].serial == serial)
            return &s->templates[i];
    return NULL;
}

/* Map and check the plan. Stays mapped in the clone; *n_bytes for munmap. */
static const struct sbx_plan *map_plan(int fd, size_t *n_bytes, struct sbx_err *e)
{
    const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat st;
    int got = fcntl(fd, F_GET_SEALS);

    if (got < 0 || (got & seals) != seals || fstat(fd, &st) < 0 || st.st_size <= 0 ||
        st.st_size > SBX_MAX_PLAN) {
        sbx_fail(e, SBX_STAGE_PLAN, 0, EBADMSG);
        return NULL;
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        sbx_fail(e, SBX_STAGE_PLAN, 0, errno);
        return NULL;
    }
    *n_bytes = (size_t)st.st_size;
    if (sbx_plan_check(map, *n_bytes, SBX_PLAN_TEMPLATE, e)) {
        munmap(map, *n_bytes);
        return NULL;
    }
    return map;
}

/* In the clone, until it executes: raw calls only (law 3). Never returns. */
static void become_zygote(struct sbx_sup *s, const struct sbx_plan *plan,
                          const struct sbx_template *m, const int *fds, int sock,
                          int go_fd) __attribute__((noreturn));

static void become_zygote(struct sbx_sup *s, const struct sbx_plan *plan,
                          const struct sbx_template *m, const int *fds, int sock,
                          int go_fd)
{
    struct sbx_reply out = {.head = {.type = SBX_MSG_REPLY}};
    char go;

    close(s->l->control_fd); /* the host must see our parent's end at once, whoever else
                                lives */
    if (read(go_fd, &go, 1) != 1)
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Where only the whole machine's memory is a limit, a job goes before the host
     * does. Best effort. */
    sbx_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "500");
    sbx_child_template(plan, fds + 1, m->n_mounts, sock, (int)m->is_command,
                       s->l->self_exe_fd, &out.err);
    sbx_send(sock, &out, sizeof out, NULL, 0, NULL, 0, MSG_DONTWAIT);
    _exit(127);
}

/* Identity of all the ids that we have. */
static int write_maps(struct sbx_sup *s, pid_t pid, int go_fd, struct sbx_err *e)
{
    int r = sbx_proc_map_ids(pid, 0, 0, 0, 0, s->l->n_uids, s->l->is_root);

    if (r)
        return sbx_fail(e, SBX_STAGE_IDMAP, 0, r);
    return write(go_fd, "g", 1) == 1 ? 0 : sbx_fail(e, SBX_STAGE_NAMESPACES, 0, errno);
}

static int launch(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_template *m,
                  const int *fds, struct sbx_err *e)
{
    uint64_t flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC |
                     CLONE_NEWUTS | CLONE_NEWCGROUP;
    int pair[2], go[2], size = SOCK_BYTES;
    size_t n_plan;
    const struct sbx_plan *plan = map_plan(fds[0], &n_plan, e);

    if (!plan)
        return -EINVAL;
    if (plan->flags & SBX_PLAN_NEW_NET)
        flags |= CLONE_NEWNET;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        munmap((void *)plan, n_plan);
        return sbx_fail(e, SBX_STAGE_FORK, 0, errno);
    }
    t->sock = pair[0];
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    SBX_FD int sock = pair[1];
    if (pipe2(go, O_CLOEXEC)) {
        munmap((void *)plan, n_plan);
        return sbx_fail(e, SBX_STAGE_FORK, 0, errno);
    }
    SBX_FD int go_read = go[0], go_write = go[1];
    t->pid = sbx_proc_clone(flags, &t->pidfd);
    if (t->pid == 0) {
        close(go_write);
        become_zygote(s, plan, m, fds, sock, go_read);
    }
    munmap((void *)plan, n_plan);
    if (t->pid < 0)
        return sbx_fail(e, SBX_STAGE_NAMESPACES, 0, t->pid);
    return write_maps(s, t->pid, go_write, e);
}

static void forget(struct sbx_sup *s, struct sbx_tmpl *t)
{
    sbx_loop_close(s, &t->sock);
    sbx_loop_close(s, &t->pidfd);
    sbx_close(&t->reply_fd);
    t->state = TEMPLATE_FREE;
}

void sbx_template_start(struct sbx_sup *s, const struct sbx_template *m, int *fds,
                        int reply_fd)
{
    struct sbx_tmpl *t = NULL;
    struct sbx_err e = {0};
    int r;

    for (unsigned i = 0; i < SBX_MAX_TEMPLATES && !t; i++)
        if (s->templates[i].state == TEMPLATE_FREE)
            t = &s->templates[i];
    if (!t || sbx_template_find(s, m->template_id)) {
        sbx_fail(&e, SBX_STAGE_PROTOCOL, 0, t ? EEXIST : ENOSPC);
        sbx_loop_reply(&reply_fd, m->template_id, &e);
        return;
    }
    *t = (struct sbx_tmpl){.state = TEMPLATE_STARTING,
                           .id = m->template_id,
                           .serial = ++s->last_serial,
                           .pidfd = -1,
                           .sock = -1,
                           .reply_fd = reply_fd,
                           .deadline_ns = sbx_now_ns() + START_NS};
    r = launch(s, t, m, fds, &e);
    if (!r && ((r = sbx_loop_watch(s, t->sock, EPOLLIN, EV_ZYGOTE, t->serial)) ||
               (r = sbx_loop_watch(s, t->pidfd, EPOLLIN, EV_ZYGOTE_PID, t->serial))))
        sbx_fail(&e, SBX_STAGE_FORK, 0, r);
    if (r) {
        if (t->pidfd >= 0)
            sbx_pidfd_kill(t->pidfd, SIGKILL);
        sbx_loop_reply(&t->reply_fd, t->id, &e);
        forget(s, t);
    }
}

static void answered(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_reply *m)
{
    if (t->state == TEMPLATE_SERVING) {
        sbx_pool_answered(s, t, m);
        return;
    }
    sbx_loop_reply(&t->reply_fd, t->id, &m->err);
    /* After an error it is about to die: EV_ZYGOTE_PID. */
    if (t->state == TEMPLATE_STARTING && m->err.stage == 0) {
        t->state = TEMPLATE_SERVING;
        t->deadline_ns = SBX_NEVER;
    }
}

/* One message of the zygote or of a job in set-up. 0 = none left. */
static int serve_one(struct sbx_sup *s, struct sbx_tmpl *t)
{
    union {
        struct sbx_head head;
        struct sbx_forked forked;
        struct sbx_ready ready;
        struct sbx_exited exited;
        struct sbx_reply reply;
    } m;
    int fd = -1;
    unsigned n_fds;
    ssize_t n = sbx_recv(t->sock, &m, sizeof m, &fd, 1, &n_fds, MSG_DONTWAIT);

    if (n == -EMSGSIZE)
        return 1;
    if (n == -EMFILE && t->state != TEMPLATE_DYING) {
        /* Word of a job is lost, and the handle to kill it by. */
        sbx_template_drop(s, t);
        return 1;
    }
    if (n <= 0)
        return 0; /* nothing there, or its end: the pidfd tells */
    if (n == sizeof m.forked && m.head.type == SBX_MSG_FORKED) {
        if (t->forking_job == m.forked.job_id) {
            t->forking_job = 0;
            t->deadline_ns = SBX_NEVER;
        }
        sbx_job_forked(s, t, &m.forked, &fd);
    } else if (n == sizeof m.ready && m.head.type == SBX_MSG_READY) {
        sbx_job_ready(s, t, &m.ready, &fd);
    } else if (n == sizeof m.exited && m.head.type == SBX_MSG_EXITED) {
        sbx_job_exited(s, t, &m.exited);
    } else if (n == sizeof m.reply && m.head.type == SBX_MSG_REPLY) {
        answered(s, t, &m.reply);
    }
    if (n_fds)
        sbx_close(&fd);
    return 1;
}

void sbx_template_serve(struct sbx_sup *s, uint64_t serial)
{
    struct sbx_tmpl *t = by_serial(s, serial);
    int left = 16; /* then other events get their turn */

    while (t && left-- && serve_one(s, t))
        ;
    if (t && left > 0) { /* end of the stream: do not spin until the pidfd fires */
        char c;
        if (recv(t->sock, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
            epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, t->sock, NULL);
    }
    if (t)
        sbx_pool_refill(s, t);
}

void sbx_template_died(struct sbx_sup *s, uint64_t serial)
{
    struct sbx_tmpl *t = by_serial(s, serial);
    struct sbx_err e = {0};

    if (!t)
        return;
    t->state = TEMPLATE_DYING;
    while (serve_one(s, t)) /* exits that it still reported */
        ;
    for (unsigned i = 0; i < s->max_job; i++)
        if (s->jobs[i].state != JOB_FREE && s->jobs[i].tmpl == t)
            sbx_job_lost(s, &s->jobs[i]);
    for (unsigned i = 0; i < SBX_MAX_POOLS; i++)
        if (s->pools[i].state != POOL_FREE && s->pools[i].tmpl == t)
            sbx_pool_lost(s, &s->pools[i]);
    sbx_fail(&e, SBX_STAGE_FORK, 0, ECHILD);
    sbx_loop_reply(&t->reply_fd, t->id, &e);
    forget(s, t);
}

void sbx_template_drop(struct sbx_sup *s, struct sbx_tmpl *t)
{
    (void)s;
    sbx_pidfd_kill(t->pidfd, SIGKILL); /* the rest when it is dead */
    t->state = TEMPLATE_DYING;
}

uint64_t sbx_template_tick(struct sbx_sup *s, uint64_t now_ns)
{
    uint64_t next = SBX_NEVER;

    for (unsigned i = 0; i < SBX_MAX_TEMPLATES; i++) {
        struct sbx_tmpl *t = &s->templates[i];
        if (t->state == TEMPLATE_FREE || t->deadline_ns == SBX_NEVER || !t->deadline_ns)
            continue;
        if (t->deadline_ns <= now_ns) {
            sbx_pidfd_kill(t->pidfd, SIGKILL);
            t->deadline_ns = SBX_NEVER;
        } else if (t->deadline_ns < next) {
            next = t->deadline_ns;
        }
    }
    return next;
}

void sbx_template_forking(struct sbx_tmpl *t, uint64_t job_id)
{
    t->forking_job = job_id;
    t->deadline_ns = sbx_now_ns() + FORK_NS;
}
