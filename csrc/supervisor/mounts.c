/* mounts.c - broker: a name in the host's file system becomes a detached mount (see
 * sbx_mount).
 *
 * The look-up follows no symbolic link and must meet the object that the host saw: what
 * was swapped in between is an error, not a grant. Only the descriptor is used
 * afterwards.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "broker.h"
#include "proc.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

enum {
    ALLOWED_ATTR = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                   MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
    MAX_MAPS = 64,
};

struct id_map {
    uint32_t from_uid, from_gid, to_uid, to_gid;
};

/* User namespaces that exist only as a map; keyed by it, the oldest is replaced. */
static struct {
    struct id_map map;
    int fd;
} maps[MAX_MAPS];
static unsigned n_maps;

static int make_userns(const struct id_map *m)
{
    char path[64], num[24];
    int pidfd = -1, fd;
    pid_t pid = sbx_proc_clone(CLONE_NEWUSER, &pidfd);

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    if (pid < 0)
        return pid;
    fd = sbx_proc_map_ids(pid, m->from_uid, m->to_uid, m->from_gid, m->to_gid, 1, 1);
    if (fd == 0) {
        strcat(strcpy(path, "/proc/"), sbx_u64_str((uint64_t)pid, num));
        fd = open(strcat(path, "/ns/user"), O_RDONLY | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    sbx_pidfd_kill(pidfd, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    sbx_close(&pidfd);
    return fd;
}

static int userns_for(const struct id_map *m)
{
    for (unsigned i = 0; i < n_maps && i < MAX_MAPS; i++)
        if (!memcmp(&maps[i].map, m, sizeof *m))
            return maps[i].fd;
    int fd = make_userns(m);
    if (fd < 0)
        return fd;
    unsigned i = n_maps % MAX_MAPS;
    if (n_maps >= MAX_MAPS)
        close(maps[i].fd);
    maps[i].map = *m;
    maps[i].fd = fd;
    n_maps = n_maps + 1 < 2 * MAX_MAPS ? n_maps + 1 : MAX_MAPS;
    return fd;
}

/* The devices that every sandbox may have; nodev would make them unusable. */
static int is_harmless_device(const struct stat *st)
{
    unsigned n = minor(st->st_rdev);

    return S_ISCHR(st->st_mode) && major(st->st_rdev) == 1 &&
           (n == 3 || n == 5 || n == 7 || n == 8 ||
            n == 9); /* null zero full random urandom */
}

static int look_up(const char *path, const struct sbx_mount *m, struct stat *st)
{
    int fd = sbx_openat2(AT_FDCWD, path, O_PATH | O_CLOEXEC, 0,
                         RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);

    if (fd < 0)
        return fd;
    if (fstat(fd, st) < 0 ||
        ((m->dev || m->ino) && (st->st_dev != m->dev || st->st_ino != m->ino))) {
        close(fd);
        return -ESTALE;
    }
    return fd;
}

static int clone_tree(int at, int *is_recursive)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    int fd = sbx_open_tree(at, "", flags | (*is_recursive ? AT_RECURSIVE : 0));

    /* In a mount namespace of a user namespace, submounts are locked: what they hide
     * must stay hidden, so the tree comes whole or not at all (mount_namespaces(7)). */
    if (fd == -EINVAL && !*is_recursive) {
        *is_recursive = 1;
        fd = sbx_open_tree(at, "", flags | AT_RECURSIVE);
    }
    return fd;
}

static int make_mount(const char *path, const struct sbx_mount *m, struct sbx_err *e)
{
    struct stat st;
    int is_recursive = m->is_recursive != 0;
    int has_map = m->map_to_uid != UINT32_MAX && m->map_to_gid != UINT32_MAX;
    SBX_FD int at = look_up(path, m, &st);
    struct sbx_mount_attr attr = {.attr_set =
                                      m->attr | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                                  .propagation = MS_PRIVATE};

    if (at < 0)
        return sbx_fail(e, SBX_STAGE_GRANT, 0, at);
    if (m->attr & ~(uint64_t)ALLOWED_ATTR)
        return sbx_fail(e, SBX_STAGE_PROTOCOL, 0, EINVAL);
    if (is_harmless_device(&st))
        attr.attr_set &= ~(uint64_t)MOUNT_ATTR_NODEV;
    SBX_FD int fd = clone_tree(at, &is_recursive);
    if (fd < 0)
        return sbx_fail(e, SBX_STAGE_GRANT, 0, fd);
    unsigned flags = AT_EMPTY_PATH | (is_recursive ? AT_RECURSIVE : 0);
    int r = sbx_mount_setattr(fd, "", flags, &attr);
    if (r)
        return sbx_fail(e, SBX_STAGE_GRANT, 0, r);
    if (has_map) {
        struct id_map map = {m->map_from_uid, m->map_from_gid, m->map_to_uid,
                             m->map_to_gid};
        int ns = userns_for(&map);
        struct sbx_mount_attr id = {.attr_set = MOUNT_ATTR_IDMAP,
                                    .userns_fd = (uint64_t)ns};
        r = ns < 0 ? ns : sbx_mount_setattr(fd, "", flags, &id);
        if (r)
            return sbx_fail(e, SBX_STAGE_GRANT_IDMAP, 0, r);
    }
    return steal_fd(&fd);
}

int sbx_mounts_serve(struct sbx_launch *l)
{
    static union {
        struct sbx_mount mount;
        char bytes[sizeof(struct sbx_mount) + 4096];
    } in;
    struct sbx_reply out = {.head = {.type = SBX_MSG_REPLY}};
    ssize_t n = sbx_recv(l->broker_fd, &in, sizeof in - 1, NULL, 0, NULL, 0);
    const char *path = in.bytes + sizeof in.mount;
    int fd = -1;

    if (n == 0)
        return -EPIPE;
    if (n < 0 && n != -EMSGSIZE)
        return (int)n;
    if (n < (ssize_t)sizeof in.mount || in.mount.head.type != SBX_MSG_MOUNT ||
        (size_t)n != sizeof in.mount + in.mount.head.n_bytes || path[0] != '/' ||
        memchr(path, 0, in.mount.head.n_bytes)) {
        sbx_fail(&out.err, SBX_STAGE_PROTOCOL, 0, EINVAL);
    } else {
        in.bytes[n] = 0;
        fd = make_mount(path, &in.mount, &out.err);
    }
    int r = sbx_send(l->broker_fd, &out, sizeof out, NULL, 0, &fd, fd >= 0, 0);
    sbx_close(&fd);
    return r;
}
