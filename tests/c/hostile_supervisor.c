/* hostile_supervisor.c - the event loop of a supervisor that was taken over: linked in
 * the place of csrc/supervisor/loop.c, so that all before it is the real start
 * (docs/explanation/taken-over.md). Tries what it can reach, tells the test by one
 * message on the control socket, ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "../../csrc/base/io.h"
#include "../../csrc/base/sys.h"
#include "../../csrc/supervisor/supervisor.h"

enum reach { /* test_taken_over.py has the same list */
             OWNER_FILE,
             SYSTEM_WRITE,
             SHADOW,
             SIGNAL_HOST,
             TAKE_HOST_FD,
             TRACE_HOST,
             NETWORK,
             ABSTRACT,
             MOUNT,
             BECOME_ROOT,
             KERNEL_SETTING,
             MODULE,
             CLOCK,
             DEVICE,
             N_REACH
};

static int opens(const char *path, int flags)
{
    SBX_FD int fd = open(path, flags, 0600);

    return fd >= 0;
}

static int connects(int port, const char *abstract)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (port)
        return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&in, sizeof in) == 0;
    strcpy(un.sun_path + 1, abstract);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&un,
                   (socklen_t)(sizeof un.sun_family + 1 + strlen(abstract))) == 0;
}

static unsigned reach(struct sbx_sup *s, const char *file, int port, const char *name)
{
    unsigned got = 0;
    struct timespec t = {1, 0};

    got |= (unsigned)opens(file, O_RDONLY) << OWNER_FILE;
    got |= (unsigned)opens("/usr/agentsbx-was-here", O_CREAT | O_WRONLY)
           << SYSTEM_WRITE;
    got |= (unsigned)opens("/etc/shadow", O_RDONLY) << SHADOW;
    got |= (unsigned)(sbx_pidfd_kill(s->l->host_pidfd, 0) == 0) << SIGNAL_HOST;
    got |= (unsigned)(syscall(SYS_pidfd_getfd, s->l->host_pidfd, 0, 0) >= 0)
           << TAKE_HOST_FD;
    got |= (unsigned)(ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0) << TRACE_HOST;
    got |= (unsigned)connects(port, "") << NETWORK;
    got |= (unsigned)connects(0, name) << ABSTRACT;
    got |= (unsigned)(mount("x", "/mnt", "tmpfs", 0, NULL) == 0) << MOUNT;
    got |= (unsigned)(setresuid(0, 0, 0) == 0 && opens("/root/.x", O_CREAT | O_WRONLY))
           << BECOME_ROOT;
    got |= (unsigned)opens("/proc/sys/kernel/core_pattern", O_WRONLY) << KERNEL_SETTING;
    got |= (unsigned)opens("/proc/sysrq-trigger", O_WRONLY) << KERNEL_SETTING;
    got |= (unsigned)(syscall(SYS_init_module, "", 0, "") == 0 || errno == ENOEXEC)
           << MODULE;
    got |= (unsigned)(clock_settime(CLOCK_REALTIME, &t) == 0) << CLOCK;
    got |= (unsigned)(mknod("/tmp/agentsbx-d", S_IFBLK | 0600, 0x800) == 0) << DEVICE;
    return got;
}

/* The test's words come as a message of the host. */
int sbx_loop_run(struct sbx_sup *s)
{
    char buf[512] = "", file[256] = "", name[64] = "";
    int port = 0;
    unsigned got;

    if (recv(s->l->control_fd, buf, sizeof buf - 1, 0) <= 0 ||
        sscanf(buf, "%255s %d %63s", file, &port, name) != 3)
        return 1;
    got = reach(s, file, port, name);
    (void)sbx_send(s->l->control_fd, &got, sizeof got, NULL, 0, NULL, 0, 0);
    return 0;
}

int sbx_loop_watch(struct sbx_sup *s, int fd, uint32_t events, enum sbx_event_kind kind,
                   uint64_t id)
{
    return 0;
}

int sbx_loop_rewatch(struct sbx_sup *s, int fd, uint32_t events,
                     enum sbx_event_kind kind, uint64_t id)
{
    return 0;
}

void sbx_loop_close(struct sbx_sup *s, int *fd)
{
    sbx_close(fd);
}

void sbx_loop_reply(int *reply_fd, uint64_t id, const struct sbx_err *e)
{
    sbx_close(reply_fd);
}
