/* session.c - see session.h. Frames: base/call.h. */
#include "session.h"

#include "../base/call.h"
#include "../base/err.h"
#include "../base/io.h"
#include "../base/sys.h"
#include "../child/child.h"
#include "tree.h"
#include "words.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
    MAX_KEEPERS = 1024,
    MAX_FDS = SBX_SPAWN_MAX_FDS + 2, /* a memfd of long words, the reply socket */
    KILL_MS = 2000,
    LEFT_OVER = 3, /* exit status of a keeper that could not end all of its tree */
};

static int keepers[MAX_KEEPERS];
static unsigned n_keepers;

/* One message as pid 1 received it; the keeper reads it. */
static struct {
    char buf[sizeof(struct sbx_frame) + SBX_FRAME_INLINE];
    ssize_t n;
    int fds[MAX_FDS];
    unsigned n_fds;
} request;

/* What a keeper starts. */
struct program {
    char **argv, **envp;
    const char *cwd;
    const int *fds;
    unsigned n_fds;
    uint32_t flags;
};

static void on_child(int number)
{
    (void)number;
}

/* SIGCHLD only interrupts ppoll: blocked at all other times, so that none is missed. */
static void hear_children(sigset_t *open)
{
    struct sigaction act = {.sa_handler = on_child};
    sigset_t closed;

    sigaction(SIGCHLD, &act, NULL);
    sigemptyset(&closed);
    sigaddset(&closed, SIGCHLD);
    sigprocmask(SIG_BLOCK, &closed, open);
    sigdelset(open, SIGCHLD);
}

/* -- keeper ----------------------------------------------------------------------- */

static void say(int reply, enum sbx_frame_kind kind, const void *body, uint32_t n)
{
    struct sbx_frame head = {(uint32_t)kind, n, 0, 0};

    (void)sbx_send(reply, &head, sizeof head, body, n, NULL, 0, 0);
}

static void refuse(int reply, enum sbx_stage stage, int err) __attribute__((noreturn));
static void refuse_as(int reply, const struct sbx_err *e) __attribute__((noreturn));

static void refuse_as(int reply, const struct sbx_err *e)
{
    say(reply, SBX_FRAME_FAILED, e, sizeof *e);
    _exit(0);
}

static void refuse(int reply, enum sbx_stage stage, int err)
{
    struct sbx_err e = {0};

    sbx_fail(&e, stage, 0, err);
    refuse_as(reply, &e);
}

/* In the child of vfork: raw calls only. Descriptors: all of `fds` are above what they
 * become, since the keeper lifted them. */
static void start(const struct program *p, volatile struct sbx_err *e)
{
    setsid();
    for (unsigned i = 0; i < p->n_fds; i++)
        if (dup3(p->fds[i], (int)i, 0) < 0) {
            sbx_fail((struct sbx_err *)e, SBX_STAGE_FDS, 0, errno);
            _exit(127);
        }
    if ((p->flags & SBX_SPAWN_TTY) && ioctl(0, TIOCSCTTY, 0) < 0) {
        sbx_fail((struct sbx_err *)e, SBX_STAGE_FDS, 0, errno);
        _exit(127);
    }
    if (*p->cwd && chdir(p->cwd) < 0) {
        sbx_fail((struct sbx_err *)e, SBX_STAGE_EXEC, 1, errno);
        _exit(127);
    }
    sbx_signals_reset();
    sbx_fail((struct sbx_err *)e, SBX_STAGE_EXEC, 0, sbx_exec(p->argv, p->envp));
    _exit(127);
}

/* Of its own, so that no variable of the caller lives across vfork. */
static __attribute__((noinline)) int fork_program(const struct program *p,
                                                  volatile struct sbx_err *e)
{
    int pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */

    if (pid == 0)
        start(p, e); /* NOLINT(clang-analyzer-unix.Vfork) */
    return pid;
}

/* What the host asks of a running program; -1: end it all. */
static int asked(int reply, int pid)
{
    struct sbx_ask ask;
    unsigned n_fds;
    ssize_t n = sbx_recv(reply, &ask, sizeof ask, NULL, 0, &n_fds, MSG_DONTWAIT);

    if (n == -EAGAIN || n == -EINTR)
        return 0;
    if (n != sizeof ask || ask.op != SBX_ASK_SIGNAL || ask.value > 64)
        return -1;
    /* Its session's first group; a program that is no leader of one any more, itself.
     */
    if (kill(-pid, (int)ask.value) < 0)
        (void)kill(pid, (int)ask.value);
    return 0;
}

/* Reap all there is; 1 when the program itself has ended. */
static int reap_program(int pid, int *status, struct rusage *ru)
{
    struct rusage used;
    int got, one, found = 0;

    while ((got = wait4(-1, &one, WNOHANG, &used)) > 0)
        if (got == pid) {
            *status = one;
            *ru = used;
            found = 1;
        }
    return found;
}

static void keep(const struct program *p, int reply) __attribute__((noreturn));

static void keep(const struct program *p, int reply)
{
    struct {
        int32_t status;
        uint32_t pad;
        struct sbx_usage usage;
    } end = {0};
    static volatile struct sbx_err failed;
    struct rusage ru = {0};
    sigset_t open;
    int status = 0, done = 0;

    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        refuse(reply, SBX_STAGE_FORK, errno);
    hear_children(&open);
    int pid = fork_program(p, &failed);
    if (pid < 0)
        refuse(reply, SBX_STAGE_FORK, errno);
    if (failed.stage)
        refuse_as(reply, (const struct sbx_err *)&failed);
    for (unsigned i = 0; i < p->n_fds; i++)
        close(p->fds[i]);
    (void)sbx_close_range(0, 2, 0); /* its ends of pipes are the program's alone */
    say(reply, SBX_FRAME_STARTED, &(int32_t){pid}, sizeof(int32_t));
    while (!done) {
        struct pollfd on = {reply, POLLIN, 0};
        if (ppoll(&on, 1, NULL, &open) > 0 && asked(reply, pid) < 0) {
            status = SIGKILL; /* as wait(2) tells it */
            break;
        }
        done = reap_program(pid, &status, &ru);
    }
    int left =
        (p->flags & SBX_SPAWN_KEEP) && done ? 0 : sbx_session_kill_below(KILL_MS);
    end.status = status;
    end.usage = (struct sbx_usage){sbx_time_us(&ru.ru_utime), sbx_time_us(&ru.ru_stime),
                                   (uint64_t)ru.ru_maxrss};
    if (left < 0)
        _exit(LEFT_OVER); /* and no EXITED: that would say that all of it is dead */
    say(reply, SBX_FRAME_EXITED, &end, sizeof end);
    if ((p->flags & SBX_SPAWN_KEEP) && done) {
        close(reply);
        while (wait4(-1, NULL, 0, NULL) > 0 || errno == EINTR)
            ;
    }
    _exit(0);
}

/* The strings of a request: in the message, or in a memfd where they are long. */
static char *strings(uint64_t *n, unsigned *k)
{
    struct sbx_frame *f = (void *)request.buf;

    if (!f->n_memfd) {
        *n = f->n_inline;
        return request.buf + sizeof *f;
    }
    char *map = mmap(NULL, f->n_memfd, PROT_READ, MAP_PRIVATE, request.fds[0], 0);
    if (map == MAP_FAILED || f->n_body > f->n_memfd)
        return NULL;
    close(request.fds[(*k)++]);
    *n = f->n_body;
    return map;
}

/* A forked keeper: read the request and serve it. */
static void serve(void) __attribute__((noreturn));

static void serve(void)
{
    const struct sbx_frame *f = (void *)request.buf;
    struct sbx_spawn head;
    unsigned k = 0;
    uint64_t n;
    char *body = strings(&n, &k);

    if (!body || k >= request.n_fds)
        _exit(0); /* closes the reply socket: the host sees that nothing was done */
    int reply = request.fds[k++];
    if (f->kind == SBX_FRAME_FILE)
        sbx_session_file(body, (unsigned)n, reply,
                         k < request.n_fds ? request.fds[k] : -1);
    char *s = body + sizeof head;
    const char *end = body + n;
    if (f->kind != SBX_FRAME_SPAWN || n < sizeof head)
        refuse(reply, SBX_STAGE_PROTOCOL, EPROTO);
    memcpy(&head, body, sizeof head);
    struct program p = {.n_fds = head.n_fds, .flags = head.flags};
    p.argv = sbx_words(&s, end, head.n_argv);
    p.envp = p.argv ? sbx_words(&s, end, head.n_env) : NULL;
    if (!p.envp || head.n_argv == 0 || s >= end || end[-1] || head.n_fds < 3 ||
        head.n_fds > SBX_SPAWN_MAX_FDS || request.n_fds - k != head.n_fds)
        refuse(reply, SBX_STAGE_PROTOCOL, EPROTO);
    p.cwd = s;
    int fds[SBX_SPAWN_MAX_FDS];
    for (unsigned i = 0; i < head.n_fds; i++) {
        fds[i] = fcntl(request.fds[k + i], F_DUPFD_CLOEXEC, SBX_SPAWN_MAX_FDS + 4);
        close(request.fds[k + i]);
    }
    int lifted = fcntl(reply, F_DUPFD_CLOEXEC, SBX_SPAWN_MAX_FDS + 4);
    if (lifted < 0)
        refuse(reply, SBX_STAGE_FDS, errno);
    close(reply);
    p.fds = fds;
    keep(&p, lifted);
}

/* -- pid 1 ------------------------------------------------------------------------ */

static int is_keeper(int pid)
{
    for (unsigned i = 0; i < n_keepers; i++)
        if (keepers[i] == pid)
            return 1;
    return 0;
}

/* Take a keeper off the list; 0 if `pid` is none. */
static int forget_keeper(int pid)
{
    for (unsigned i = 0; i < n_keepers; i++)
        if (keepers[i] == pid) {
            keepers[i] = keepers[--n_keepers];
            return 1;
        }
    return 0;
}

/* A keeper that was killed leaves its tree to us: all children of ours that are no
 * keepers. One round misses what forks meanwhile; but each that it kills, or that ends
 * by itself, comes to us as such a child and makes for the next round, until none is
 * left. A keeper that was stopped would not answer: nobody stops one but a program that
 * wants to outlive its time. */
static void reap_keepers(void)
{
    int pid, status, sweep = 0;

    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (!WIFSTOPPED(status))
            sweep |= !forget_keeper(pid) || status != 0;
        else if (is_keeper(pid))
            (void)kill(pid, SIGKILL);
    }
    if (sweep)
        (void)sbx_tree_kill(1, is_keeper);
}

static void take_request(void)
{
    request.n = sbx_recv(SBX_JOB_CHANNEL, request.buf, sizeof request.buf, request.fds,
                         MAX_FDS, &request.n_fds, 0);
    const struct sbx_frame *f = (void *)request.buf;
    if (request.n == 0 || request.n == -ECONNRESET)
        _exit(0); /* the kernel ends all that is left in the pid namespace */
    if (request.n < (ssize_t)sizeof *f)
        return;
    int pid = -1;
    if (n_keepers < MAX_KEEPERS && request.n == (ssize_t)(sizeof *f + f->n_inline))
        pid = fork();
    if (pid == 0) {
        close(SBX_JOB_CHANNEL);
        (void)signal(SIGCHLD, SIG_DFL);
        serve();
    }
    if (pid > 0)
        keepers[n_keepers++] = pid;
    for (unsigned i = 0; i < request.n_fds; i++)
        close(request.fds[i]); /* of a request that was not served: the host sees it */
}

void sbx_session_run(void)
{
    sigset_t open;

    sbx_cpu_release();
    sbx_signals_reset();
    hear_children(&open);
    for (;;) {
        struct pollfd on = {SBX_JOB_CHANNEL, POLLIN, 0};
        reap_keepers();
        if (ppoll(&on, 1, NULL, &open) > 0)
            take_request();
    }
}
