/* notify.c - seccomp listeners (seccomp_unotify(2)): every notified call is denied, and
 * recorded.
 *
 * Only numbers of the kernel's record are used. A job's memory is never read here, and
 * nothing is ever continued: a pointer judged now can point elsewhere when the call
 * runs.
 */
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "supervisor.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS /* Linux 6.6 */
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

/* Then the listener is closed and the kernel answers ENOSYS: still denied, no longer
 * recorded. */
enum { MAX_NOTIFIED = 256, PATIENCE_US = 50000 };

static int errno_for(uint32_t nr)
{
    switch (nr) {
#define SBX_HANDLER(call, err, why) \
    case SYS_##call:                \
        return err;
#include "handlers.def"
#undef SBX_HANDLER
    default: return EPERM;
    }
}

void sbx_notify_add(struct sbx_sup *s, struct sbx_jb *j, int *listener)
{
    if (*listener < 0)
        return;
    j->listener_fd = steal_fd(listener);
    /* The caller sleeps until we answer: run us on its CPU. Unknown to older kernels,
     * and fine. */
    ioctl(j->listener_fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS,
          SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    if (sbx_loop_watch(s, j->listener_fd, EPOLLIN, EV_LISTENER, j->id))
        sbx_close(&j->listener_fd);
}

/* Registers beyond a call's own arguments hold whatever was there: they would tell
 * equal calls apart. */
static unsigned n_args_of(uint32_t nr)
{
    switch (nr) {
    case SYS_unshare:
    case SYS_setuid:
    case SYS_setgid: return 1;
    case SYS_setns:
    case SYS_listen:
    case SYS_kill:
    case SYS_tkill:
    case SYS_umount2:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setgroups: return 2;
    case SYS_socket:
    case SYS_connect:
    case SYS_bind:
    case SYS_accept:
    case SYS_tgkill:
    case SYS_bpf:
    case SYS_setresuid:
    case SYS_setresgid: return 3;
    default: return 4;
    }
}

static void record(struct sbx_jb *j, const struct seccomp_data *d)
{
    struct sbx_denied *x;
    uint64_t args[4] = {0};

    memcpy(args, d->args, sizeof *args * n_args_of((uint32_t)d->nr));
    for (uint32_t i = 0; i < j->n_denied; i++) {
        x = &j->denied[i];
        if (x->nr == (uint32_t)d->nr && !memcmp(x->args, args, sizeof args)) {
            x->count++;
            return;
        }
    }
    if (j->n_denied == SBX_MAX_DENIED)
        return;
    x = &j->denied[j->n_denied++];
    x->nr = (uint32_t)d->nr;
    x->count = 1;
    memcpy(x->args, args, sizeof args);
}

/* kill(1, SIGKILL): in its own namespace the kernel would ignore it
 * (pid_namespaces(7)), but a program that ends itself so means it. The filter notifies
 * this one case only. */
static int is_suicide(const struct seccomp_data *d)
{
    uint32_t sig = (uint32_t)(d->nr == SYS_tgkill ? d->args[2] : d->args[1]);

    return (d->nr == SYS_kill || d->nr == SYS_tkill || d->nr == SYS_tgkill) &&
           (uint32_t)d->args[0] == 1 && sig == SIGKILL;
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* One record. The kernel waits here when somebody else took it: a listener that our
 * zygote or a job kept a copy of must not stop us, who keep all the deadlines. A signal
 * without SA_RESTART ends the wait. 0 or -errno, -EINTR: so it was. */
static int receive(int listener, void *in)
{
    const struct itimerval patience = {.it_value.tv_usec = PATIENCE_US}, none = {0};
    struct sigaction act = {.sa_handler = on_alarm};

    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &patience, NULL);
    int r = ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, in) ? -errno : 0;
    setitimer(ITIMER_REAL, &none, NULL);
    return r;
}

void sbx_notify_serve(struct sbx_sup *s, uint64_t job_id, uint32_t events)
{
    struct sbx_jb *j = sbx_job_find(s, job_id);
    /* The kernel may know longer records than these headers (seccomp_notif_sizes). */
    union {
        struct seccomp_notif n;
        char bytes[512];
    } in;
    union {
        struct seccomp_notif_resp r;
        char bytes[256];
    } out;

    if (!j || j->listener_fd < 0)
        return;
    if (!(events & EPOLLIN)) { /* the filter's last user is gone */
        sbx_loop_close(s, &j->listener_fd);
        return;
    }
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    int r = receive(j->listener_fd, &in);
    if (r) {
        if (r != -ENOENT) /* the caller died meanwhile: fine */
            sbx_loop_close(s, &j->listener_fd);
        return;
    }
    record(j, &in.n.data);
    if (is_suicide(&in.n.data)) {
        sbx_job_kill(j, SBX_CAUSE_SIGNALED);
        return;
    }
    out.r.id = in.n.id;
    out.r.error = -errno_for((uint32_t)in.n.data.nr);
    ioctl(j->listener_fd, SECCOMP_IOCTL_NOTIF_SEND, &out);
    if (++j->n_notified >= MAX_NOTIFIED)
        sbx_loop_close(s, &j->listener_fd);
}
