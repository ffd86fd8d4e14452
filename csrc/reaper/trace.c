/* trace.c - see trace.h. Sources: ptrace(2), seccomp(2); a RET_TRACE stop is followed
 * by the exit of the same call since Linux 4.8, PTRACE_GET_SYSCALL_INFO is there since
 * 5.3. */
#include "trace.h"

#include "../base/call.h"
#include "../base/io.h"
#include "../base/sys.h"
#include "../child/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452 /* 6.6 */
#endif
#ifdef __x86_64__
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#else
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#endif

enum { MAX_THREADS = 512, MAX_SEEN = 4096, MAX_REPORTS = 2048, MAX_PATH = 4096 };
enum { CREATES = 100 };

struct traced {
    uint32_t nr;
    int dirfd, path, path2, fd, creates;
};

static const struct traced calls[] = {
#define SBX_TRACED(call, dirfd, path, path2, creates) \
    {SYS_##call, dirfd, path, path2, -1, creates},
#define SBX_TRACED_FD(call, fd) {SYS_##call, -1, -1, -1, fd, 0},
#include "traced.def"
#undef SBX_TRACED
#undef SBX_TRACED_FD
};
enum { N_CALLS = sizeof calls / sizeof *calls };

/* A thread of the command and the call that it is in. */
struct thread {
    int tid; /* 0 = free */
    const struct traced *call;
    uint64_t args[6];
};

static struct thread threads[MAX_THREADS];
static uint64_t seen[MAX_SEEN]; /* hashes of what was reported */
static unsigned n_reports;

static int load_filter(void)
{
    static const uint32_t denied[] = {SYS_ptrace, SYS_process_vm_readv};
    static struct sock_filter bpf[4 + 2 * N_CALLS + 4 + 1];
    unsigned n = 0;

    /* The job's own filter, below, has refused foreign architectures. */
    bpf[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                            offsetof(struct seccomp_data, arch));
    bpf[n++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0);
    bpf[n++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    bpf[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                            offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < sizeof denied / sizeof *denied; i++) {
        bpf[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, denied[i], 0, 1);
        bpf[n++] =
            (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    for (unsigned i = 0; i < N_CALLS; i++) {
        bpf[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].nr, 0, 1);
        bpf[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | i);
    }
    bpf[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog prog = {(unsigned short)n, bpf};
    return SBX_RET(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

int sbx_trace_enter(void)
{
    if (syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0) < 0)
        return -errno;
    (void)raise(SIGSTOP); /* pid 1 sets its options */
    return load_filter();
}

static struct thread *find(int tid)
{
    struct thread *free_one = NULL;

    for (unsigned i = 0; i < MAX_THREADS; i++) {
        if (threads[i].tid == tid)
            return &threads[i];
        if (!threads[i].tid && !free_one)
            free_one = &threads[i];
    }
    return free_one; /* NULL: more threads than the table holds; those run unseen */
}

/* -- what a failed call was about ------------------------------------------------- */

/* A string of the tracee into buf, NUL-terminated; its length, 0 if it cannot be read.
 */
static size_t read_string(int tid, uint64_t at, char *buf)
{
    size_t n = 0;

    while (n <
           MAX_PATH - 1) { /* never across a page in one go: the next may be absent */
        size_t part = 4096 - (at + n) % 4096;
        if (part > MAX_PATH - 1 - n)
            part = MAX_PATH - 1 - n;
        struct iovec to = {buf + n, part}, from = {(void *)(uintptr_t)(at + n), part};
        long got = syscall(SYS_process_vm_readv, tid, &to, 1UL, &from, 1UL, 0UL);
        if (got <= 0)
            return 0;
        size_t len = strnlen(buf + n, (size_t)got);
        n += len;
        if (len < (size_t)got)
            break;
    }
    buf[n] = 0;
    return n;
}

/* What /proc/<tid>/<what> points to. */
static size_t read_link(int tid, const char *what, char *buf)
{
    char name[64] = "/proc/";

    sbx_u64_str((uint64_t)tid, name + strlen(name));
    strcat(name, "/");
    strcat(name, what);
    ssize_t n = readlink(name, buf, MAX_PATH - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static size_t read_fd(int tid, int fd, char *buf)
{
    char what[32] = "fd/";

    if (fd < 0)
        return 0;
    sbx_u64_str((uint64_t)fd, what + 3);
    return read_link(tid, what, buf);
}

/* The absolute name behind (dirfd, path), as far as it can be known. */
static size_t read_path(const struct thread *t, int dirfd_arg, int path_arg, char *buf)
{
    static char name[MAX_PATH];
    size_t n = read_string(t->tid, t->args[path_arg], name), base;
    int dirfd = dirfd_arg < 0 ? AT_FDCWD : (int)t->args[dirfd_arg];

    if (name[0] == '/' && n) {
        memcpy(buf, name, n + 1);
        return n;
    }
    base =
        dirfd == AT_FDCWD ? read_link(t->tid, "cwd", buf) : read_fd(t->tid, dirfd, buf);
    if (!n || !base || base + n + 2 > MAX_PATH)
        return base;
    buf[base] = '/';
    memcpy(buf + base + 1, name, n + 1);
    return base + 1 + n;
}

static int is_new(const void *what, size_t n)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)what)[i]) * 1099511628211u;
    h |= 1; /* 0 = free */
    for (unsigned i = 0, at = h % MAX_SEEN; i < MAX_SEEN;
         i++, at = (at + 1) % MAX_SEEN) {
        if (seen[at] == h)
            return 0;
        if (!seen[at]) {
            seen[at] = h;
            return 1;
        }
    }
    return 0;
}

/* What a wall or a limit answers; all else is the program's own affair. */
static int is_denial(const struct traced *c, int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return 1;
    case EAGAIN: return c->path < 0 && c->fd < 0; /* too many processes */
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOSYS:
    case EMFILE: return c->path >= 0;
    default: return 0;
    }
}

static unsigned creates(const struct thread *t)
{
    int how = t->call->creates;

    return how == CREATES || (how && (t->args[how] & O_CREAT));
}

static void report(const struct thread *t, int err)
{
    static struct {
        struct sbx_frame head;
        struct sbx_denial denial;
        char names[2 * MAX_PATH + 2];
    } m;
    const struct traced *c = t->call;
    size_t n = 0;

    if (n_reports == MAX_REPORTS)
        return;
    m.denial = (struct sbx_denial){c->nr, (uint32_t)err, creates(t)};
    if (c->path >= 0)
        n = read_path(t, c->dirfd, c->path, m.names);
    else if (c->fd >= 0)
        n = read_fd(t->tid, (int)t->args[c->fd], m.names);
    m.names[n++] = 0;
    if (c->path2 >= 0) {
        n += read_path(t, c->dirfd < 0 ? -1 : c->path2 - 1, c->path2, m.names + n);
        m.names[n++] = 0;
    }
    if (!is_new(&m.denial, sizeof m.denial + n))
        return;
    n_reports++;
    m.head =
        (struct sbx_frame){SBX_FRAME_DENIED, (uint32_t)(sizeof m.denial + n), 0, 0};
    (void)sbx_send(SBX_JOB_CHANNEL, &m.head, sizeof m.head, &m.denial, m.head.n_inline,
                   NULL, 0, 0);
}

/* -- stops ------------------------------------------------------------------------ */

static int syscall_info(int tid, struct ptrace_syscall_info *info)
{
    return syscall(SYS_ptrace, PTRACE_GET_SYSCALL_INFO, tid, sizeof *info, info) > 0;
}

static void go_on(int tid, int how, int sig)
{
    (void)syscall(SYS_ptrace, how, tid, 0, sig);
}

static void on_entry(struct thread *t, int tid)
{
    struct ptrace_syscall_info info;

    if (!t || !syscall_info(tid, &info) || info.op != PTRACE_SYSCALL_INFO_SECCOMP ||
        info.seccomp.ret_data >= N_CALLS) { /* a filter of the program's own */
        go_on(tid, PTRACE_CONT, 0);
        return;
    }
    t->call = &calls[info.seccomp.ret_data];
    memcpy(t->args, info.seccomp.args, sizeof t->args);
    go_on(tid, PTRACE_SYSCALL, 0);
}

static void on_exit_of_call(struct thread *t)
{
    struct ptrace_syscall_info info;

    if (t->call && syscall_info(t->tid, &info) && info.op == PTRACE_SYSCALL_INFO_EXIT &&
        info.exit.is_error && is_denial(t->call, (int)-info.exit.rval))
        report(t, (int)-info.exit.rval);
    t->call = NULL;
}

static void on_stop(int tid, int status)
{
    struct thread *t = find(tid);
    int sig = WSTOPSIG(status), event = status >> 16, is_first = !t || !t->tid;

    if (t && !t->tid)
        *t = (struct thread){.tid = tid};
    if (event == PTRACE_EVENT_SECCOMP) {
        on_entry(t, tid);
    } else if (sig == (SIGTRAP | 0x80)) {
        if (t)
            on_exit_of_call(t);
        go_on(tid, PTRACE_CONT, 0);
    } else if (event || (sig == SIGSTOP && is_first)) { /* a birth, or a new program */
        if (t)
            t->call = NULL;
        go_on(tid, PTRACE_CONT, 0);
    } else {
        go_on(tid, t && t->call ? PTRACE_SYSCALL : PTRACE_CONT, sig);
    }
}

int sbx_trace_serve(int pid, struct rusage *ru)
{
    const unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP |
                                  PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                  PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                                  PTRACE_O_EXITKILL;
    int status, got;

    do
        got = wait4(pid, &status, __WALL, ru);
    while (got < 0 && errno == EINTR);
    if (got == pid && WIFSTOPPED(status)) {
        threads[0].tid = pid;
        (void)syscall(SYS_ptrace, PTRACE_SETOPTIONS, pid, 0, options);
        go_on(pid, PTRACE_CONT, 0);
    }
    while (got != pid || WIFSTOPPED(status)) {
        got = wait4(-1, &status, __WALL, ru);
        if (got < 0 && errno != EINTR)
            return -1; /* cannot be: `pid` is ours and not reaped */
        if (got > 0 && WIFSTOPPED(status)) {
            on_stop(got, status);
        } else if (got > 0) {
            struct thread *t = find(got);
            if (t)
                t->tid = 0;
        }
    }
    return status;
}
