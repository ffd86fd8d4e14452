/* supervisor.h - state of the supervisor, shared by its modules. Read ../base/wire.h
 * first.
 *
 * One process, one thread, pid 1 of the outer pid namespace: its death ends every
 * zygote and job. It never runs user code, holds no secret and reads nothing that a job
 * writes (only kernel records: seccomp notifications, /proc numbers, cgroup files). All
 * tables are fixed arrays: nothing allocates.
 *
 *   loop.c      wait (epoll), then dispatch one event; deadlines
 *   host.c      messages on the control socket
 *   template.c  start zygotes, messages of zygotes, their death
 *   pool.c      pools, refill policy, publication of waiting sandboxes
 *   job.c       life of one job: fork .. ready .. start .. exit
 *   poll.c      limits that nothing else enforces: CPU time, memory
 *
 *   notify.c    seccomp listeners: record what was denied
 *
 *   cgroup*.c   slots
 *
 * Ids: jobs, templates and pools are found by index; a serial in the id keeps stale
 * events and messages from meeting a later tenant of the slot.
 */
#ifndef SBX_SUPERVISOR_H
#define SBX_SUPERVISOR_H

#include <stdint.h>
#include <sys/types.h>

#include "../base/wire.h"
#include "broker.h"
#include "cgroup.h"

enum {
    SBX_MAX_TEMPLATES = 64,
    SBX_MAX_POOLS = 256,
    SBX_MAX_JOBS = 2048,
    SBX_MAX_WAITERS = 4,
    SBX_N_EXITS = 1024, /* ended jobs that a late WAIT still learns about */
};

#define SBX_NEVER UINT64_MAX

/* DYING: killed or dead; it is only waited for. */
enum sbx_template_state {
    TEMPLATE_FREE = 0,
    TEMPLATE_STARTING,
    TEMPLATE_SERVING,
    TEMPLATE_DYING
};

struct sbx_tmpl {
    enum sbx_template_state state;
    uint64_t id; /* the host's */
    uint64_t serial;
    pid_t pid;
    int pidfd, sock;
    int reply_fd;         /* host waits here while STARTING */
    uint64_t forking_job; /* FORK sent, FORKED not yet seen; 0 = none */
    uint64_t deadline_ns; /* of STARTING and of FORK */
};

enum sbx_pool_state { POOL_FREE = 0, POOL_OPENING, POOL_OPEN, POOL_DROPPED };

/* a pool */
struct sbx_plc {
    enum sbx_pool_state state;
    struct sbx_pool def;
    uint64_t serial;
    struct sbx_tmpl *tmpl;
    int sock, reply_fd;
    int snapshot_fd;
    uint64_t version;
    uint32_t n_extra;   /* asked for by GROW, not forked yet */
    uint64_t retry_ns;  /* publish again then what could not be sent; 0 = nothing */
    uint64_t refill_ns; /* no refill before: the call that just started goes first */
    uint32_t n_jobs;    /* of any state: a dropped pool is freed with its last one */
    uint32_t n_waiting; /* forking or waiting */
    uint32_t cpu;       /* of the last host thread, see sbx_kill */
    uint32_t n_owed;    /* asked for by GROW, not published yet */
    /* sandboxes that died before any START, since the last START */
    uint32_t n_early_deaths;
    int is_paused; /* sandboxes fail: no refill until the host acts */
};

enum sbx_job_state { JOB_FREE = 0, JOB_FORKING, JOB_WAITING, JOB_RUNNING };

/* a job */
struct sbx_jb {
    enum sbx_job_state state;
    uint64_t id;
    struct sbx_plc *pool;
    struct sbx_tmpl *tmpl;
    int pidfd;                      /* -1 until FORKED */
    pid_t pid;                      /* in our namespace; 0 = not looked up yet */
    int channel_fd, out_fd, err_fd; /* the host's ends, until published */
    int listener_fd;
    int is_published, is_killed;
    int is_counted; /* in pool->n_waiting */
    struct sbx_slot *slot;
    uint64_t version;
    uint64_t setup_deadline_ns, start_ns, deadline_ns, next_poll_ns;
    uint64_t exit_ns; /* killed: when its zygote should have said so */
    uint64_t peak_bytes, peak_processes, polled_cpu_ns;
    uint32_t cause;
    uint32_t n_notified, n_denied;
    unsigned n_waiters;
    int waiters[SBX_MAX_WAITERS];
    struct sbx_denied denied[SBX_MAX_DENIED];
};

struct sbx_sup {
    struct sbx_launch *l;
    int epoll_fd;
    uint64_t last_serial;
    unsigned max_job; /* jobs[0 .. max_job) have been used */
    struct sbx_tmpl templates[SBX_MAX_TEMPLATES];
    struct sbx_plc pools[SBX_MAX_POOLS];
    struct sbx_jb jobs[SBX_MAX_JOBS];
    struct sbx_exit exits[SBX_N_EXITS];
    unsigned n_exits;
};

/* What an epoll event is about: kind in the top byte, then serial or job id. */
enum sbx_event_kind {
    EV_CONTROL = 1,
    EV_HOST,
    EV_BROKER,
    EV_ZYGOTE,
    EV_ZYGOTE_PID,
    EV_POOL,
    EV_LISTENER
};

/* start.c: the clone's entry, in the new namespaces, maps not yet written. Exit status.
 */
int sbx_supervisor_main(struct sbx_launch *l);

/* loop.c */
int sbx_loop_run(struct sbx_sup *s);
int sbx_loop_watch(struct sbx_sup *s, int fd, uint32_t events, enum sbx_event_kind kind,
                   uint64_t id);
int sbx_loop_rewatch(struct sbx_sup *s, int fd, uint32_t events,
                     enum sbx_event_kind kind, uint64_t id);
/* Close a watched descriptor: a clone may hold a copy for a while, which would keep it
 * watched. */
void sbx_loop_close(struct sbx_sup *s, int *fd);
/* Answer a reply socket and close it. */
void sbx_loop_reply(int *reply_fd, uint64_t id, const struct sbx_err *e);

/* host.c: one message; -EPIPE when the host is gone or said STOP. */
int sbx_host_serve(struct sbx_sup *s);

/* template.c. start: takes fds (plan, mounts) and reply_fd. */
void sbx_template_start(struct sbx_sup *s, const struct sbx_template *m, int *fds,
                        int reply_fd);
struct sbx_tmpl *sbx_template_find(struct sbx_sup *s, uint64_t id);
void sbx_template_serve(struct sbx_sup *s, uint64_t serial);
void sbx_template_died(struct sbx_sup *s, uint64_t serial);
/* Kill the zygote: its pid namespace and all its jobs end with it. */
void sbx_template_drop(struct sbx_sup *s, struct sbx_tmpl *t);
/* FORK was sent: until FORKED no other. */
void sbx_template_forking(struct sbx_tmpl *t, uint64_t job_id);
/* Deadlines of all templates; the next one. */
uint64_t sbx_template_tick(struct sbx_sup *s, uint64_t now_ns);

/* pool.c. open: takes fds (plan, mounts), sock and reply_fd. */
void sbx_pool_open(struct sbx_sup *s, const struct sbx_pool *m, int *fds, int sock,
                   int reply_fd);
struct sbx_plc *sbx_pool_find(struct sbx_sup *s, uint64_t id);
void sbx_pool_answered(struct sbx_sup *s, struct sbx_tmpl *t,
                       const struct sbx_reply *m);
void sbx_pool_drop(struct sbx_sup *s, struct sbx_plc *p);
void sbx_pool_hung_up(struct sbx_sup *s, uint64_t serial, uint32_t events);
/* Fork what the policy wants now, in every pool of the template. */
void sbx_pool_refill(struct sbx_sup *s, struct sbx_tmpl *t);
/* The host acts: what failed before counts no more. */
void sbx_pool_resume(struct sbx_sup *s, struct sbx_plc *p);
/* A job of the pool was started: one fewer waits. */
void sbx_pool_started(struct sbx_sup *s, struct sbx_plc *p);
uint64_t sbx_pool_tick(struct sbx_sup *s, uint64_t now_ns);
/* A call waits: hand out up to `n` complete sandboxes that are kept here, and remember
 * the rest as owed. Returns how many must still be forked. */
uint32_t sbx_pool_serve(struct sbx_sup *s, struct sbx_plc *p, uint32_t n);
/* Tell the host about a complete sandbox, or about one that could not be made. */
void sbx_pool_publish(struct sbx_sup *s, struct sbx_plc *p, struct sbx_jb *j);
void sbx_pool_refuse(struct sbx_plc *p, uint64_t job_id, const struct sbx_err *e);
void sbx_pool_release(struct sbx_sup *s, struct sbx_plc *p); /* one job less */
/* The zygote is dead: tell the host, forget. */
void sbx_pool_lost(struct sbx_sup *s, struct sbx_plc *p);

/* job.c */
int sbx_job_fork(struct sbx_sup *s,
                 struct sbx_plc *p); /* 0, -EAGAIN: zygote busy, else failed */
struct sbx_jb *sbx_job_find(struct sbx_sup *s, uint64_t id);
/* What the zygote `t` says, or a job of its in set-up. A zygote that was taken over is
 * hostile: it speaks for jobs of its own alone, and once of each. */
void sbx_job_forked(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_forked *m,
                    int *pidfd);
void sbx_job_ready(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_ready *m,
                   int *listener);
void sbx_job_start(struct sbx_sup *s, const struct sbx_start *m);
/* SIGKILL to its pid 1; the stronger cause is kept. */
void sbx_job_kill(struct sbx_jb *j, enum sbx_cause cause);
/* A waiting sandbox that is in the host's hands: killed if no START comes soon. */
void sbx_job_expire(struct sbx_jb *j, uint64_t now_ns);
void sbx_job_wait(struct sbx_sup *s, uint64_t id, int reply_fd, int is_stat);
void sbx_job_exited(struct sbx_sup *s, struct sbx_tmpl *t, const struct sbx_exited *m);
void sbx_job_lost(struct sbx_sup *s, struct sbx_jb *j);
uint64_t sbx_job_tick(struct sbx_sup *s, uint64_t now_ns);

/* poll.c */
/* Look at a running job: peaks, limits. Kills it when it is over one. */
void sbx_poll_job(struct sbx_sup *s, struct sbx_jb *j, uint64_t now_ns);
/* Usage so far into m (cgroup, else polled numbers; else what m holds already). */
void sbx_poll_fill(struct sbx_sup *s, struct sbx_jb *j, struct sbx_exit *m);

/* notify.c */
void sbx_notify_add(struct sbx_sup *s, struct sbx_jb *j, int *listener);
void sbx_notify_serve(struct sbx_sup *s, uint64_t job_id, uint32_t events);

#endif
