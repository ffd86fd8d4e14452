/* hostile_zygote.c - stands where a zygote stands, as if one had been taken over
 * (docs/explanation/taken-over.md). Run by test_taken_over.py as the program of a
 * template: argv[1] says what it tries. Speaks by the messages of a zygote alone. */
#include "../../csrc/base/wire.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SOCK = 3 };

static void say(const void *m, size_t n, int fd)
{
    char ctl[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {(void *)m, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = ctl;
        msg.msg_controllen = sizeof ctl;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    (void)sendmsg(SOCK, &msg, 0);
}

static void reply(uint64_t id, unsigned stage, unsigned op, unsigned detail)
{
    struct sbx_reply m = {.head = {.type = SBX_MSG_REPLY},
                          .id = id,
                          .err = {(uint16_t)stage, (uint16_t)op, 0, detail}};

    say(&m, sizeof m, -1);
}

static void forked(uint64_t job, int pidfd)
{
    struct sbx_forked m = {.head = {.type = SBX_MSG_FORKED}, .job_id = job};

    say(&m, sizeof m, pidfd);
}

static void ready(uint64_t job, int listener)
{
    struct sbx_ready m = {.head = {.type = SBX_MSG_READY}, .job_id = job};

    m.has_listener = listener >= 0;
    say(&m, sizeof m, listener);
}

static void exited(uint64_t job)
{
    struct sbx_exited m = {.head = {.type = SBX_MSG_EXITED}, .job_id = job};

    say(&m, sizeof m, -1);
}

/* The next message: type, id of pool or job in *id, descriptors stay open. */
static unsigned next(uint64_t *id, int *fds)
{
    static char buf[SBX_MAX_MSG];
    char ctl[CMSG_SPACE(sizeof(int) * 128)];
    struct iovec iov = {buf, sizeof buf};
    struct msghdr msg = {&(struct sockaddr_storage){0}, 0, &iov, 1, ctl, sizeof ctl, 0};
    struct sbx_head *head = (void *)buf;

    if (recvmsg(SOCK, &msg, 0) <= 0)
        _exit(0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c)
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    *id = head->type == SBX_MSG_POOL   ? ((struct sbx_pool *)buf)->pool_id
          : head->type == SBX_MSG_FORK ? ((struct sbx_fork *)buf)->job_id
                                       : 0;
    return head->type;
}

/* -- what is in reach -------------------------------------------------------------- */

enum reach {
    HOST_FILE,      /* a file of the host that no grant names */
    OTHER_PROCESS,  /* any process but its own in /proc */
    SIGNAL_ALL,     /* somebody to signal */
    WRITE_SYSTEM,   /* a file made in the system's directories */
    HOST_NETWORK,   /* a port on the host's loopback */
    ABSTRACT,       /* an abstract socket of the host */
    TRACE_ABOVE,    /* its parent */
    BLOCK_DEVICE,   /* a device made */
    OTHER_GROUPS,   /* control groups of jobs */
    KERNEL_SETTING, /* a setting of the kernel written */
    MODULE,         /* a module loaded */
    CLOCK,
    N_REACH
};

static int opens(const char *path, int flags)
{
    int fd = open(path, flags, 0600);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int others(void)
{
    DIR *d = opendir("/proc");
    int n = 0;

    for (struct dirent *e; d && (e = readdir(d));)
        n += strtol(e->d_name, NULL, 10) > 0 && strtol(e->d_name, NULL, 10) != getpid();
    return n;
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

static int sees_groups(void)
{
    int n = 0;

    (void)mkdir("/tmp/g", 0700);
    for (int i = 0; i < 4; i++) {
        static const char *const kinds[] = {"memory", "pids", "freezer", ""};
        if (mount("x", "/tmp/g", i == 3 ? "cgroup2" : "cgroup", 0, kinds[i]))
            continue;
        DIR *d = opendir("/tmp/g");
        for (struct dirent *e; d && (e = readdir(d));)
            n += !strncmp(e->d_name, "slot-", 5) || strstr(e->d_name, "agentsbx");
        if (d)
            closedir(d);
        (void)umount2("/tmp/g", MNT_DETACH);
    }
    return n;
}

static int writes_system(void)
{
    (void)mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND,
                NULL); /* it may: own mounts */
    return opens("/usr/agentsbx-was-here", O_CREAT | O_WRONLY);
}

static unsigned reach(char **argv)
{
    unsigned got = 0;
    struct timespec t = {1, 0};
    char path[300];

    got |= (unsigned)opens(argv[2], O_RDONLY) << HOST_FILE;
    snprintf(path, sizeof path, "/proc/1/root%s", argv[2]);
    got |= (unsigned)opens(path, O_RDONLY) << HOST_FILE;
    got |= (unsigned)(others() > 0) << OTHER_PROCESS;
    got |= (unsigned)(kill(-1, 0) == 0) << SIGNAL_ALL;
    got |= (unsigned)writes_system() << WRITE_SYSTEM;
    got |= (unsigned)connects(atoi(argv[3]), "") << HOST_NETWORK;
    got |= (unsigned)connects(0, argv[4]) << ABSTRACT;
    got |= (unsigned)(ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0) << TRACE_ABOVE;
    got |= (unsigned)(mknod("/tmp/d", S_IFBLK | 0600, 0x800) == 0) << BLOCK_DEVICE;
    got |= (unsigned)(sees_groups() > 0) << OTHER_GROUPS;
    got |= (unsigned)opens("/proc/sys/kernel/core_pattern", O_WRONLY) << KERNEL_SETTING;
    got |= (unsigned)opens("/proc/sysrq-trigger", O_WRONLY) << KERNEL_SETTING;
    got |= (unsigned)(syscall(SYS_init_module, "", 0, "") == 0 || errno == ENOEXEC)
           << MODULE;
    got |= (unsigned)(clock_settime(CLOCK_REALTIME, &t) == 0) << CLOCK;
    return got;
}

/* -- what it says ------------------------------------------------------------------ */

/* A process that sleeps until it is killed; its pidfd. */
static int sleeper(pid_t *pid)
{
    *pid = fork();
    if (*pid == 0)
        for (;;)
            pause();
    return (int)syscall(SYS_pidfd_open, *pid, 0);
}

/* Says of jobs of others that they ended, are ready, have another process. */
static void forge(uint64_t own)
{
    pid_t pid;
    int fd = sleeper(&pid);

    for (uint64_t serial = 1; serial < 40; serial++)
        for (uint64_t i = 0; i < 16; i++) {
            uint64_t job = serial * 2048 + i;
            if (job == own)
                continue;
            exited(job);
            forked(job, fd);
            ready(job, -1);
        }
}

/* A listener that never has anything: its filter notifies one call that nobody makes.
 */
static int listener_of(pid_t *pid)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {4, code};
    int pair[2], fd;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return -1;
    *pid = fork();
    if (*pid == 0) {
        fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                          SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
        dup2(fd, 100);
        (void)write(pair[1], "x", 1);
        for (;; sleep(20)) /* who missed these waits long for the next */
            for (int i = 0; i < 50; i++)
                (void)syscall(SYS_getppid);
    }
    char c;
    (void)read(pair[0], &c, 1);
    int pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
    return (int)syscall(SYS_pidfd_getfd, pidfd, 100, 0);
}

/* Takes each record before the supervisor can. */
static void steal(int fd)
{
    union {
        struct seccomp_notif n;
        char bytes[512];
    } in;

    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            for (;;) {
                memset(&in, 0, sizeof in);
                if (!ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &in)) {
                    struct seccomp_notif_resp out = {.id = in.n.id, .error = -1};
                    usleep(200);
                    (void)ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &out);
                }
            }
}

static void flood(void)
{
    char junk[256];
    int fd = open("/dev/null", O_RDWR);

    for (unsigned i = 0;; i++) {
        memset(junk, (int)i, sizeof junk);
        *(uint32_t *)(void *)junk = i % 20;
        say(junk, i % sizeof junk, i & 1 ? fd : -1);
    }
}

static void on_fork(const char *how, uint64_t job)
{
    pid_t pid, other;
    int fd;

    if (!strcmp(how, "forge")) {
        fd = sleeper(&pid);
        forked(job, fd);
        ready(job, -1);
        forge(job);
    } else if (!strcmp(how, "no-pidfd")) {
        forked(job, open("/dev/null", O_RDWR));
    } else if (!strcmp(how,
                       "mute")) { /* another process than the job's, and no EXITED */
        sleeper(&pid);
        fd = sleeper(&other);
        forked(job, fd);
        ready(job, -1);
    } else if (!strcmp(how, "listener")) {
        int l = listener_of(&pid);
        forked(job, (int)syscall(SYS_pidfd_open, pid, 0));
        steal(l);
        ready(job, l);
    } else if (!strcmp(how, "flood")) {
        fd = sleeper(&pid);
        forked(job, fd);
        ready(job, -1);
        flood();
    }
}

/* A read-only mount of a pool made writable again, and its file written. */
static void try_grant(uint64_t pool, int mount_fd)
{
    struct {
        uint64_t set, clear, propagation, userns;
    } attr = {0, 1, 0, 0};
    int unlocked = (int)syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH, &attr,
                                sizeof attr);
    int fd = openat(mount_fd, "file", O_WRONLY);

    reply(pool, 1, 7, (unsigned)(unlocked == 0) << 1 | (unsigned)(fd >= 0));
}

int main(int argc, char **argv)
{
    int fds[128];
    uint64_t id;

    if (argc < 2)
        return 1;
    if (!strcmp(argv[1], "reach")) {
        reply(0, 1, 7, reach(argv));
        return 0;
    }
    reply(0, 0, 0, 0);
    for (;;)
        switch (next(&id, fds)) {
        case SBX_MSG_POOL:
            if (!strcmp(argv[1], "grant"))
                try_grant(id, fds[1]);
            else
                reply(id, 0, 0, 0);
            break;
        case SBX_MSG_FORK: on_fork(argv[1], id); break;
        default: break;
        }
}
