/* The answers to notified calls: kernel records of what a job asked, any numbers in
 * them. No memory of a job is read (notify.c): the record is all there is. Before the
 * fuzzing a real listener without a record: the supervisor must not wait in it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned char *input;
static size_t n_input;
static int n_sent, last_error, is_real;

static int fake_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *p = va_arg(args, void *);
    va_end(args);
    if (is_real)
        return ioctl(fd, request, p);
    if (request == SECCOMP_IOCTL_NOTIF_RECV) {
        struct seccomp_notif *in = p;
        if (n_input == 0) {
            errno = ENOENT;
            return -1;
        }
        in->id = 7;
        memcpy(&in->data, input, n_input < sizeof in->data ? n_input : sizeof in->data);
        return 0;
    }
    if (request == SECCOMP_IOCTL_NOTIF_SEND) {
        const struct seccomp_notif_resp *out = p;
        n_sent++;
        last_error = out->error;
        if (out->flags || out->val || out->id != 7)
            __builtin_trap(); /* nothing is ever continued */
    }
    return 0;
}

#define ioctl fake_ioctl
#include "../../csrc/supervisor/notify.c"
#undef ioctl

static struct sbx_sup sup;
static struct sbx_launch launch;
static int was_killed;

/* The parts of the supervisor that it calls. */
struct sbx_jb *sbx_job_find(struct sbx_sup *s, uint64_t id)
{
    return &s->jobs[id % SBX_MAX_JOBS];
}

void sbx_job_kill(struct sbx_jb *j, enum sbx_cause cause)
{
    was_killed = 1;
}

int sbx_loop_watch(struct sbx_sup *s, int fd, uint32_t events, enum sbx_event_kind kind,
                   uint64_t id)
{
    return 0;
}

void sbx_loop_close(struct sbx_sup *s, int *fd)
{
    sbx_close(fd);
}

static int real_listener(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4095, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {4, code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                        SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    int fd = real_listener();

    sup.l = &launch;
    if (fd < 0) /* a container's filter may forbid it: nothing to try then */
        return 0;
    is_real = 1;
    sup.jobs[1].listener_fd = fd;
    uint64_t before = sbx_now_ns();
    sbx_notify_serve(&sup, 1, EPOLLIN);
    SBX_CHECK(sbx_now_ns() - before < 5000000000ull);
    SBX_CHECK(sup.jobs[1].listener_fd < 0); /* it is of no more use */
    is_real = 0;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sbx_jb *j = &sup.jobs[1];
    size_t step = sizeof(struct seccomp_data);

    memset(j, 0, sizeof *j);
    j->state = JOB_RUNNING;
    j->listener_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (size_t at = 0; at < n && j->listener_fd >= 0; at += step) {
        int before = n_sent;
        input = data + at;
        n_input = n - at < step ? n - at : step;
        was_killed = 0;
        sbx_notify_serve(&sup, 1, EPOLLIN);
        /* Each caller gets an errno, or dies; none is let through, none is forgotten.
         */
        SBX_CHECK(was_killed ? n_sent == before : n_sent == before + 1);
        SBX_CHECK(was_killed || last_error < 0);
        SBX_CHECK(j->n_denied <= SBX_MAX_DENIED && j->n_denied >= 1);
    }
    sbx_close(&j->listener_fd);
    return 0;
}
