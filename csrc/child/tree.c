/* tree.c - the tree operations of a plan: every mount is made and placed by file
 * descriptor.
 *
 * Paths inside the tree are resolved beneath root_fd with RESOLVE_NO_SYMLINKS: neither
 * an image nor an earlier job can redirect a mount (CVE-2021-30465, CVE-2024-42472 and
 * their kin).
 */
#include "child.h"

#include "../base/io.h"
#include "../base/sys.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };

static int at(const struct sbx_setup *s, const char *path, uint64_t flags)
{
    return sbx_openat2(s->root_fd, path[1] ? path + 1 : ".", flags | O_CLOEXEC, 0,
                       BENEATH);
}

/* Split into an open parent directory (made with mode 0755 where missing) and the last
 * name. */
static int open_parent(const struct sbx_setup *s, const char *path, const char **name)
{
    char part[NAME_MAX + 1];
    int dir = fcntl(s->root_fd, F_DUPFD_CLOEXEC, 3);

    *name = path + 1;
    if (dir < 0)
        return -errno;
    for (;;) {
        const char *c = *name, *end = strchr(c, '/');
        if (!end)
            return dir;
        size_t n = (size_t)(end - c);
        int next = -ENAMETOOLONG;
        if (n < sizeof part) {
            memcpy(part, c, n);
            part[n] = 0;
            next = sbx_openat2(dir, part, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, BENEATH);
            if (next == -ENOENT && (mkdirat(dir, part, 0755) == 0 || errno == EEXIST))
                next = sbx_openat2(dir, part, O_PATH | O_DIRECTORY | O_CLOEXEC, 0,
                                   BENEATH);
            else if (next == -ENOENT)
                next = -errno;
        }
        close(dir);
        if (next < 0)
            return next;
        dir = next;
        *name = end + 1;
    }
}

static int make_file(const struct sbx_setup *s, const char *path, const char *text,
                     mode_t mode)
{
    const char *name;
    SBX_FD int dir = open_parent(s, path, &name);
    size_t n = strlen(text);

    if (dir < 0)
        return dir;
    SBX_FD int fd =
        openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    while (n) {
        ssize_t r = write(fd, text, n);
        if (r < 0)
            return -errno;
        text += r;
        n -= (size_t)r;
    }
    return fchmod(fd, mode) < 0 ? -errno : 0;
}

static int make_dir(const struct sbx_setup *s, const char *path, mode_t mode,
                    int is_own)
{
    const char *name;
    SBX_FD int dir = open_parent(s, path, &name);

    if (dir < 0)
        return dir;
    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    SBX_FD int fd =
        sbx_openat2(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, BENEATH);
    if (fd < 0)
        return fd;
    if (is_own && fchown(fd, s->uid_index, s->uid_index) < 0)
        return -errno;
    return mode && fchmod(fd, mode) < 0 ? -errno : 0;
}

/* O_PATH fd of a mount target, made as directory or empty file where it does not exist.
 */
static int target(const struct sbx_setup *s, const char *path, int is_file)
{
    int fd = at(s, path, O_PATH);

    if (fd != -ENOENT)
        return fd;
    int r = is_file ? make_file(s, path, "", 0444) : make_dir(s, path, 0, 0);
    if (r < 0 && r != -EEXIST)
        return r;
    return at(s, path, O_PATH);
}

static int place(const struct sbx_setup *s, int mount_fd, const char *path, int is_file)
{
    if (mount_fd < 0)
        return mount_fd;
    SBX_FD int to = target(s, path, is_file);
    return to < 0 ? to : sbx_move_mount(mount_fd, to);
}

static int new_tmpfs(uint64_t bytes, uint64_t inodes)
{
    char num[24];
    SBX_FD int fs = sbx_fsopen("tmpfs");
    int r = fs;

    if (r >= 0)
        r = sbx_fsconfig(fs, SBX_FSCONFIG_SET_STRING, "mode", "0755");
    if (r >= 0 && bytes)
        r = sbx_fsconfig(fs, SBX_FSCONFIG_SET_STRING, "size", sbx_u64_str(bytes, num));
    if (r >= 0 && inodes)
        r = sbx_fsconfig(fs, SBX_FSCONFIG_SET_STRING, "nr_inodes",
                         sbx_u64_str(inodes, num));
    if (r >= 0)
        r = sbx_fsconfig(fs, SBX_FSCONFIG_CMD_CREATE, NULL, NULL);
    return r < 0 ? r : sbx_fsmount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

static int op_tmpfs(struct sbx_setup *s, const struct sbx_op *op, const char *path)
{
    SBX_FD int fd = new_tmpfs(op->a, op->b);
    int r;

    if (fd < 0)
        return fd;
    if (path[1])
        return place(s, fd, path, 0);
    /* A template's own root: stacked on the old one, and from now on the root of all
     * paths. */
    SBX_FD int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0)
        return -errno;
    r = sbx_move_mount(fd, old);
    if (r == 0) {
        sbx_close(&s->root_fd);
        s->root_fd = steal_fd(&fd);
    }
    return r;
}

/* Fresh proc of the job's own pid namespace. The kernel allows it only while a fully
 * visible proc is in the mount namespace, so the zygote's is dropped after fsmount,
 * before the new one takes its place. */
static int op_proc(struct sbx_setup *s, const struct sbx_op *op, const char *path)
{
    SBX_FD int fs = sbx_fsopen("proc");
    int r = fs < 0 ? fs : sbx_fsconfig(fs, SBX_FSCONFIG_CMD_CREATE, NULL, NULL);

    if (r < 0)
        return r;
    SBX_FD int fd =
        sbx_fsmount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                            (op->flags & SBX_F_RDONLY ? MOUNT_ATTR_RDONLY : 0));
    if (fd >= 0 && s->plan->kind == SBX_PLAN_JOB && umount2(path, MNT_DETACH) < 0 &&
        errno != EINVAL)
        return -errno;
    return place(s, fd, path, 0);
}

static int set_rdonly(int fd)
{
    struct sbx_mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    return sbx_mount_setattr(fd, "", AT_EMPTY_PATH, &attr);
}

static int op_bind(struct sbx_setup *s, const struct sbx_op *op, const char *path)
{
    char store[96] = SBX_POOL_DIR "/", num[24];

    if (s->plan->kind == SBX_PLAN_TEMPLATE) {
        if (op->arg >= s->n_mount_fds)
            return -EBADF;
        return place(s, s->mount_fds[op->arg], path, op->flags & SBX_F_FILE);
    }
    strcat(store, sbx_u64_str(s->pool_id, num));
    strcat(store, "/");
    strcat(store, sbx_u64_str(op->arg, num));
    SBX_FD int fd = sbx_open_tree(AT_FDCWD, store, OPEN_TREE_CLOEXEC);
    if (!(op->flags & SBX_F_NOCREATE))
        return place(s, fd, path, op->flags & SBX_F_FILE);
    SBX_FD int to = at(s, path, O_PATH);
    if (to == -ENOENT && (op->flags & SBX_F_OPTIONAL))
        return 0;
    return fd < 0 ? fd : to < 0 ? to : sbx_move_mount(fd, to);
}

static int op_self(struct sbx_setup *s, const struct sbx_op *op, const char *path,
                   const char *source)
{
    SBX_FD int from = at(s, source, O_PATH);
    if (from < 0)
        return from;
    SBX_FD int fd = sbx_open_tree(from, "",
                                  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH |
                                      (op->flags & SBX_F_RECURSIVE ? AT_RECURSIVE : 0));
    int r = fd < 0 ? fd : op->flags & SBX_F_RDONLY ? set_rdonly(fd) : 0;
    return r < 0 ? r : place(s, fd, path, op->flags & SBX_F_FILE);
}

static int op_move(struct sbx_setup *s, const char *path, const char *source)
{
    struct stat st;
    SBX_FD int from = at(s, source, O_PATH);

    if (from < 0)
        return from;
    return fstat(from, &st) < 0 ? -errno : place(s, from, path, !S_ISDIR(st.st_mode));
}

static int op_node(struct sbx_setup *s, const char *path)
{
    struct stat st;
    SBX_FD int fd = sbx_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISCHR(st.st_mode) ? place(s, fd, path, 1) : -ENXIO;
}

static int op_mask(struct sbx_setup *s, const char *path)
{
    struct stat st;
    SBX_FD int to = at(s, path, O_PATH);

    if (to == -ENOENT)
        return 0;
    if (to < 0)
        return to;
    if (fstat(to, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode)) {
        SBX_FD int fd =
            sbx_open_tree(s->root_fd, ".empty", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        int r = fd < 0 ? fd : set_rdonly(fd);
        return r < 0 ? r : sbx_move_mount(fd, to);
    }
    SBX_FD int null =
        sbx_open_tree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return null < 0 ? null : sbx_move_mount(null, to);
}

static int op_rdonly(struct sbx_setup *s, const char *path)
{
    SBX_FD int fd = at(s, path, O_PATH);

    return fd < 0 ? fd : set_rdonly(fd);
}

static int op_pivot(struct sbx_setup *s)
{
    if (fchdir(s->root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return -errno;
    sbx_close(&s->root_fd);
    s->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return s->root_fd < 0 ? -errno : 0;
}

static int op_symlink(struct sbx_setup *s, const char *path, const char *text)
{
    const char *name;
    SBX_FD int dir = open_parent(s, path, &name);

    return dir < 0 ? dir : symlinkat(text, dir, name) < 0 ? -errno : 0;
}

int sbx_tree_op(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                struct sbx_err *e)
{
    const char *path = sbx_plan_str(s->plan, op->path),
               *text = sbx_plan_str(s->plan, op->text);
    enum sbx_stage stage = SBX_STAGE_MOUNT;
    int r = -EINVAL;

    switch (op->kind) {
    case SBX_OP_TMPFS:
        stage = path[1] ? SBX_STAGE_TMPFS : SBX_STAGE_ROOT;
        r = op_tmpfs(s, op, path);
        break;
    case SBX_OP_MKDIR:
        stage = SBX_STAGE_ROOT;
        r = make_dir(s, path, (mode_t)op->a, op->flags & SBX_F_OWN);
        break;
    case SBX_OP_WRITE:
        stage = SBX_STAGE_ROOT;
        r = make_file(s, path, text, (mode_t)op->a);
        break;
    case SBX_OP_SYMLINK:
        stage = SBX_STAGE_ROOT;
        r = op_symlink(s, path, text);
        break;
    case SBX_OP_BIND: r = op_bind(s, op, path); break;
    case SBX_OP_NODE:
        stage = SBX_STAGE_DEV;
        r = op_node(s, path);
        break;
    case SBX_OP_SELF: r = op_self(s, op, path, text); break;
    case SBX_OP_MOVE: r = op_move(s, path, text); break;
    case SBX_OP_PROC:
        stage = SBX_STAGE_PROC;
        r = op_proc(s, op, path);
        break;
    case SBX_OP_MASK:
        stage = SBX_STAGE_MASK;
        r = op_mask(s, path);
        break;
    case SBX_OP_RDONLY: r = op_rdonly(s, path); break;
    case SBX_OP_PIVOT:
        stage = SBX_STAGE_PIVOT;
        r = op_pivot(s);
        break;
    case SBX_OP_DETACH: r = umount2(path, MNT_DETACH) < 0 ? -errno : 0; break;
    default: stage = SBX_STAGE_PLAN; break;
    }
    return r < 0 ? sbx_fail(e, stage, i, r) : 0;
}
