/* fds.c - descriptors and signals of a job. CLOEXEC does nothing where nothing execs,
 * so everything that the plan does not name is really closed, and counted afterwards.
 */
#include "child.h"

#include "../base/call.h"
#include "../base/io.h"
#include "../base/sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <string.h>

/* getdents64(2) */
struct dirent64_raw {
    uint64_t ino, off;
    unsigned short len;
    unsigned char type;
    char name[];
};

int sbx_fds_close(unsigned first, struct sbx_err *e)
{
    char buf[2048] __attribute__((aligned(8)));
    uint64_t fd_no;
    int r = sbx_close_range(first, ~0u, 0);

    if (r < 0)
        return sbx_fail(e, SBX_STAGE_FDS, 0, r);
    SBX_FD int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return sbx_fail(e, SBX_STAGE_FDS, 0, errno);
    for (;;) {
        long n = syscall(SYS_getdents64, dir, buf, sizeof buf);
        if (n < 0)
            return sbx_fail(e, SBX_STAGE_FDS, 0, errno);
        if (n == 0)
            return 0;
        for (long off = 0; off < n;) {
            struct dirent64_raw *d = (void *)(buf + off);
            if (sbx_parse_u64(d->name, &fd_no) == 0 && fd_no >= first &&
                fd_no != (uint64_t)dir)
                return sbx_fail(e, SBX_STAGE_FDS, (unsigned)fd_no, EBADF);
            off += d->len;
        }
    }
}

/* Signals whose default action ends a process, without KILL and those that Python
 * ignores (PIPE, XFSZ). SEGV and its kin are among them for who sends them by kill(2);
 * a real fault on a broken stack is forced by the kernel all the same. */
static const int deadly[] = {SIGHUP,  SIGQUIT, SIGABRT,   SIGUSR1,   SIGUSR2,
                             SIGALRM, SIGTERM, SIGVTALRM, SIGPROF,   SIGIO,
                             SIGXCPU, SIGTRAP, SIGPWR,    SIGSTKFLT, SIGSEGV,
                             SIGBUS,  SIGFPE,  SIGILL,    SIGSYS};

static void die_of(int sig)
{
    struct {
        struct sbx_frame head;
        uint32_t sig;
    } frame = {{SBX_FRAME_SIGNAL, 4, 0, 0}, (uint32_t)sig};

    if (getpid() != 1) { /* a child that os.fork() made: the usual death */
        (void)signal(sig, SIG_DFL);
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
        return;
    }
    (void)sbx_send(SBX_JOB_CHANNEL, &frame, sizeof frame.head + 4, NULL, 0, NULL, 0,
                   MSG_DONTWAIT);
    _exit(128 + sig);
}

void sbx_signals_install(void)
{
    struct sigaction act = {.sa_handler = die_of, .sa_flags = SA_RESTART | SA_NODEFER};

    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        sigaction(deadly[i], &act, NULL);
    for (int rt = SIGRTMIN; rt <= SIGRTMAX; rt++)
        sigaction(rt, &act, NULL);
}

void sbx_signals_reset(void)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig < 32; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            sigaction(sig, &act, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
