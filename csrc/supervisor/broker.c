/* broker.c - see broker.h. */
#include "broker.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "proc.h"
#include "supervisor.h"

static volatile sig_atomic_t is_asked_to_end;

static void ask_to_end(int sig)
{
    (void)sig;
    is_asked_to_end = 1;
}

/* What the host passed on by habit is none of ours: keys in the environment, its umask,
 * its signals. */
static void forget_host(void)
{
    struct sigaction act = {.sa_handler = ask_to_end};

    for (char **e = environ; e && *e; e++)
        explicit_bzero(*e, strlen(*e));
    umask(022);
    (void)signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
}

static int parse_fd(const char *s, int *fd)
{
    uint64_t v;

    if (sbx_parse_u64(s, &v) || v < 3 || v > 1 << 20)
        return -EINVAL;
    *fd = (int)v;
    return fcntl(*fd, F_SETFD, FD_CLOEXEC) ? -errno : 0;
}

/* Descriptors that the host had made inheritable: kept open here, a pipe of its would
 * never end and a port stay taken. */
static int close_others(const struct sbx_launch *l)
{
    int keep[] = {l->control_fd, l->broker_fd, l->host_pidfd}, from = 3, r = 0;

    for (int n = 0; n < 3 && !r; n++) {
        int least = 1 << 30;
        for (int i = 0; i < 3; i++)
            if (keep[i] >= from && keep[i] < least)
                least = keep[i];
        if (least > from)
            r = sbx_close_range((unsigned)from, (unsigned)least - 1, 0);
        from = least + 1;
    }
    return r ? r : sbx_close_range((unsigned)from, ~0u, 0);
}

/* 0-2 are /dev/null from here on: nothing of ours prints, and no descriptor of ours may
 * land there. */
static int take_stdio(struct sbx_launch *l)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    l->null_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    for (int i = 0; i < 3; i++)
        if (!(l->is_debug && i == 2) && dup2(l->null_fd, i) < 0)
            return -errno;
    if (fd > 2)
        close(fd);
    return l->null_fd < 0 ? -EMFILE : 0;
}

/* Are the host ids [base, base + n) ours to give? They are not in a container with a
 * small map. */
static int is_range_mapped(uint32_t base, uint32_t n)
{
    FILE *f = fopen("/proc/self/uid_map", "re");
    unsigned long long in, out, len;
    int is_in = 0;

    /* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers */
    while (f && fscanf(f, "%llu %llu %llu", &in, &out, &len) == 3)
        is_in |= base >= in && (unsigned long long)base + n <= in + len;
    if (f)
        (void)fclose(f);
    return is_in;
}

static int has_root_caps(void)
{
    enum {
        NEED =
            1u << CAP_SYS_ADMIN | 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_CHOWN
    };
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    return geteuid() == 0 && syscall(SYS_capget, &head, data) == 0 &&
           (data[0].effective & NEED) == NEED;
}

/* A mount namespace of our own; as an ordinary user in a user namespace, where we are
 * root of nothing but our mounts. Slave: what the host mounts later is seen, nothing of
 * ours leaks out. */
static int enter_namespaces(struct sbx_launch *l, struct sbx_err *e)
{
    uint32_t uid = geteuid(), gid = getegid();
    int r;

    l->is_root = has_root_caps() && is_range_mapped(SBX_UID_BASE, SBX_N_UIDS);
    l->uid_base = l->is_root ? SBX_UID_BASE : 0;
    l->n_uids = l->is_root ? SBX_N_UIDS : 1;
    if (unshare(CLONE_NEWNS | (l->is_root ? 0 : CLONE_NEWUSER)))
        return sbx_fail(e, l->is_root ? SBX_STAGE_NAMESPACES : SBX_STAGE_USERNS, 0,
                        errno);
    if (!l->is_root && (r = sbx_proc_map_ids(getpid(), 0, uid, 0, gid, 1, 0)))
        return sbx_fail(e, SBX_STAGE_IDMAP, 0, r);
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL))
        return sbx_fail(e, SBX_STAGE_NAMESPACES, 0, errno);
    return 0;
}

/* Our own program through a read-only mount of its own: pid 1 of a command's sandbox
 * runs it, and must not be able to open it for writing by /proc/self/exe (compare
 * CVE-2019-5736). */
static int open_self(struct sbx_launch *l, struct sbx_err *e)
{
    struct sbx_mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                              MOUNT_ATTR_NODEV};
    char path[64], num[24];
    SBX_FD int exe = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    SBX_FD int tree = -1;
    struct stat want, got;
    int r;

    if (exe < 0)
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, errno);
    /* The magic link's mount is of the namespace that we left; the same file by name is
     * of ours. */
    char name[4096];
    ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
    if (n <= 0)
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, errno);
    name[n] = 0;
    tree = sbx_open_tree(AT_FDCWD, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, tree);
    if (fstat(exe, &want) || fstat(tree, &got) || want.st_dev != got.st_dev ||
        want.st_ino != got.st_ino)
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, ESTALE);
    if ((r = sbx_mount_setattr(tree, "", AT_EMPTY_PATH, &attr)))
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, r);
    strcat(strcpy(path, "/proc/self/fd/"), sbx_u64_str((uint64_t)tree, num));
    l->self_exe_fd = open(path, O_RDONLY | O_CLOEXEC);
    return l->self_exe_fd < 0 ? sbx_fail(e, SBX_STAGE_LAUNCH, 0, errno) : 0;
}

/* Clone the supervisor, write its maps, let it go on. Its pid, or -errno. */
static pid_t start_supervisor(struct sbx_launch *l, int *pidfd, struct sbx_err *e)
{
    /* No cgroup namespace: with one, the supervisor could not put jobs into groups
     * outside its own. */
    const uint64_t flags =
        CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
        CLONE_NEWNET; /* empty: it speaks over the sockets that it is given */
    int go[2], r;
    unsigned char may_use_cg;

    l->broker_pidfd = sbx_pidfd_open(getpid());
    if (l->broker_pidfd < 0 || pipe2(go, O_CLOEXEC))
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, errno);
    pid_t pid = sbx_proc_clone(flags, pidfd);
    if (pid == 0) {
        close(go[1]);
        sbx_close(&l->broker_fd);
        l->go_fd = go[0];
        _exit(sbx_supervisor_main(l));
    }
    close(go[0]);
    if (pid < 0) {
        close(go[1]);
        return sbx_fail(e, SBX_STAGE_USERNS, 0, pid);
    }
    r = sbx_proc_map_ids(pid, 0, l->uid_base, 0, l->uid_base, l->n_uids, l->is_root);
    may_use_cg = r == 0 && l->cg.version && sbx_cg_adopt(&l->cg, pid) == 0;
    if (r == 0 && write(go[1], &may_use_cg, 1) != 1)
        r = -EPIPE;
    close(go[1]);
    if (r) {
        sbx_pidfd_kill(*pidfd, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return sbx_fail(e, SBX_STAGE_IDMAP, 0, r);
    }
    return pid;
}

/* Until the host or the supervisor is gone. */
static void serve(struct sbx_launch *l, int pidfd)
{
    while (!is_asked_to_end) {
        struct pollfd p[] = {{.fd = pidfd, .events = POLLIN},
                             {.fd = l->host_pidfd, .events = POLLIN},
                             {.fd = l->broker_fd, .events = POLLIN}};
        if (poll(p, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if (p[0].revents || p[1].revents)
            return;
        if (p[2].revents && sbx_mounts_serve(l))
            return;
    }
}

static int start(struct sbx_launch *l, struct sbx_err *e)
{
    forget_host();
    setsid(); /* fails for a group leader only, and the host gave us a session then */
    if (enter_namespaces(l, e) || open_self(l, e))
        return -1;
    if (chdir("/"))
        return sbx_fail(e, SBX_STAGE_LAUNCH, 0, errno);
    sbx_cg_make_parents(&l->cg, l->is_root ? l->uid_base : UINT32_MAX,
                        l->is_root ? l->uid_base : UINT32_MAX);
    return 0;
}

int sbx_broker_main(int argc, char **argv)
{
    static struct sbx_launch l; /* zero; the supervisor inherits it */
    struct sbx_hello hello = {.head = {.type = SBX_MSG_HELLO}};
    int pidfd = -1;
    pid_t pid = -1;

    l.self_exe_fd = l.null_fd = l.go_fd = l.broker_pidfd = -1;
    for (int i = 5; i < argc; i++) {
        if (strcmp(argv[i], "--debug") != 0)
            return 2;
        l.is_debug = 1;
    }
    if (argc < 5 || parse_fd(argv[2], &l.control_fd) ||
        parse_fd(argv[3], &l.broker_fd) || parse_fd(argv[4], &l.host_pidfd) ||
        close_others(&l) || take_stdio(&l))
        return 2;
    if (start(&l, &hello.err) == 0)
        pid = start_supervisor(&l, &pidfd, &hello.err);
    if (pid < 0)
        sbx_send(l.control_fd, &hello, sizeof hello, NULL, 0, NULL, 0, 0);
    sbx_close(&l.control_fd); /* the supervisor's alone: its death is the host's EOF */
    if (pid > 0) {
        serve(&l, pidfd);
        sbx_pidfd_kill(pidfd, SIGKILL);
        /* Returns when the whole pid namespace is gone. */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    sbx_cg_remove_parents(&l.cg);
    return pid > 0 ? 0 : 1;
}
