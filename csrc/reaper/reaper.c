/* reaper.c - see reaper.h. Frames: base/call.h. */
#include "reaper.h"

#include "../base/call.h"
#include "../base/err.h"
#include "../base/io.h"
#include "../base/sys.h"
#include "../child/child.h"
#include "../job/leftovers.h"
#include "../spawn/zygote.h"
#include "session.h"
#include "trace.h"
#include "words.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct command {
    char **argv, **envp;
    int fds[3]; /* -1: keep what is there */
    unsigned fd_mask;
    int is_traced;
    struct sbx_keep keep;
};

static void fail(enum sbx_stage stage, int err) __attribute__((noreturn));

static void fail(enum sbx_stage stage, int err)
{
    struct {
        struct sbx_frame head;
        struct sbx_err err;
    } m = {.head = {SBX_FRAME_FAILED, sizeof(struct sbx_err), 0, 0}};

    sbx_fail(&m.err, stage, 0, err);
    (void)sbx_send(SBX_JOB_CHANNEL, &m.head, sizeof m.head, &m.err, sizeof m.err, NULL,
                   0, 0);
    _exit(127);
}

static void parse(char *body, size_t n, struct command *c)
{
    struct sbx_exec head;
    char *s = body + sizeof head, *end = body + n;

    if (n < sizeof head)
        fail(SBX_STAGE_PROTOCOL, EPROTO);
    memcpy(&head, body, sizeof head);
    c->argv = sbx_words(&s, end, head.n_argv);
    c->envp = c->argv ? sbx_words(&s, end, head.n_env) : NULL;
    if (!c->envp || head.n_argv == 0 || (size_t)(end - s) != head.n_keep ||
        (head.n_keep && end[-1]))
        fail(SBX_STAGE_PROTOCOL, EPROTO);
    c->keep = (struct sbx_keep){s, head.n_keep, head.keep_bytes};
    c->fd_mask = head.fd_mask & 7;
    c->is_traced = head.is_traced != 0;
}

static void receive(struct command *c)
{
    static char buf[sizeof(struct sbx_frame) + SBX_FRAME_INLINE];
    struct sbx_frame *f = (void *)buf;
    int fds[4];
    unsigned n_fds, k = 0;
    ssize_t n = sbx_recv(SBX_JOB_CHANNEL, buf, sizeof buf, fds, 4, &n_fds, 0);

    if (n == 0)
        _exit(0); /* never called: the pool was dropped */
    if (n == (ssize_t)sizeof *f && f->kind == SBX_FRAME_SESSION)
        sbx_session_run();
    if (n < (ssize_t)sizeof *f || f->kind != SBX_FRAME_EXEC ||
        n != (ssize_t)(sizeof *f + f->n_inline))
        fail(SBX_STAGE_PROTOCOL, n < 0 ? (int)-n : EPROTO);
    if (f->n_memfd) { /* long argument lists */
        char *map = n_fds ? mmap(NULL, f->n_memfd, PROT_READ, MAP_PRIVATE, fds[0], 0)
                          : MAP_FAILED;
        if (map == MAP_FAILED || f->n_body > f->n_memfd)
            fail(SBX_STAGE_PROTOCOL, EPROTO);
        close(fds[k++]);
        parse(map, f->n_body, c);
    } else {
        parse(buf + sizeof *f, f->n_inline, c);
    }
    for (int i = 0; i < 3; i++)
        if (c->fd_mask & (1u << i)) {
            if (k == n_fds)
                fail(SBX_STAGE_PROTOCOL, EBADF);
            c->fds[i] = fds[k++];
        }
}

/* In the child, which shares *e with pid 1 (after vfork all of its memory): raw calls,
 * and no writes but to *e. */
static void exec_command(const struct command *c, struct sbx_err *e)
{
    setsid();
    for (int i = 0; i < 3; i++)
        if (c->fds[i] >= 0 && dup3(c->fds[i], i, 0) < 0) {
            sbx_fail(e, SBX_STAGE_EXEC, 0, errno);
            _exit(127);
        }
    if (c->is_traced) {
        int r = sbx_trace_enter();
        if (r < 0) {
            sbx_fail(e, SBX_STAGE_TRACE, 0, r);
            _exit(127);
        }
    }
    sbx_fail(e, SBX_STAGE_EXEC, 0, sbx_exec(c->argv, c->envp));
    _exit(127);
}

/* Where the child says what failed: one of vfork shares all memory; a traced one comes
 * of fork, since pid 1 must not sleep until the execve. */
static __attribute__((noinline)) struct sbx_err *shared_error(int is_traced)
{
    static struct sbx_err own;

    if (!is_traced)
        return &own;
    void *page = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        fail(SBX_STAGE_FORK, errno);
    return page;
}

/* Before the answer: what the command leaves is gone with us. A broken channel shows in
 * the answer. */
static void report_leftovers(long n_before, const struct command *c)
{
    static struct sbx_leftovers walk;

    if (sbx_leftovers_count() != n_before)
        (void)sbx_leftovers_send(&walk, SBX_JOB_CHANNEL, &c->keep);
}

void sbx_reaper_run(uint32_t cpu)
{
    struct {
        struct sbx_frame head;
        int32_t status;
        uint32_t pad;
        struct sbx_usage usage;
    } m = {.head = {SBX_FRAME_EXITED, sizeof m - sizeof m.head, 0, 0}};
    struct command c = {.fds = {-1, -1, -1}};
    struct rusage ru;
    int status, pid, got;
    const long n_files = sbx_leftovers_count();

    (void)fcntl(SBX_JOB_CHANNEL, F_SETFD, FD_CLOEXEC);
    sbx_cpu_wait_on(cpu);
    receive(&c);
    sbx_cpu_release();
    sbx_signals_reset(); /* ignored by pid 1; the command starts with defaults */
    volatile struct sbx_err *const e = shared_error(c.is_traced);
    /* Not posix_spawn: it has no way to report errno by stage, and fork would copy. The
     * child runs raw calls only (see exec_command). */
    if (c.is_traced)
        pid = fork();
    else
        pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
    if (pid == 0)
        exec_command(&c, (void *)e); /* NOLINT(clang-analyzer-unix.Vfork) */
    if (pid < 0)
        fail(SBX_STAGE_FORK, errno);
    for (int i = 0; i < 3; i++)
        sbx_close(&c.fds[i]);
    if (c.is_traced) {
        status = sbx_trace_serve(pid, &ru);
    } else {
        do
            got = wait4(-1, &status, 0, &ru);
        while (got != pid && (got > 0 || errno == EINTR));
    }
    if (e->stage)
        fail(e->stage, e->err);
    report_leftovers(n_files, &c);
    m.status = status;
    m.usage = (struct sbx_usage){sbx_time_us(&ru.ru_utime), sbx_time_us(&ru.ru_stime),
                                 (uint64_t)ru.ru_maxrss};
    (void)sbx_send(SBX_JOB_CHANNEL, &m.head, sizeof m.head, &m.status, m.head.n_inline,
                   NULL, 0, 0);
    _exit(0);
}

int sbx_command_zygote_main(void)
{
    struct sbx_job_info info;
    int r = sbx_zygote_serve(SBX_JOB_CHANNEL, NULL, &info);

    if (r == 1)
        sbx_reaper_run(info.cpu);
    return r < 0 ? 1 : 0;
}
