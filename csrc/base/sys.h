/* sys.h - system calls that glibc 2.35 does not wrap, by number, and the unit of a time
 * that one returns. Async-signal-safe. 0/fd or -errno unless noted. Sources: the man
 * page of each; numbers are the same on all architectures since 5.x. */
#ifndef SBX_SYS_H
#define SBX_SYS_H

#ifndef _GNU_SOURCE
#error "compile with -D_GNU_SOURCE"
#endif

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/landlock.h>
#include <linux/openat2.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC 02000000 /* O_CLOEXEC */
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#define MOVE_MOUNT_T_EMPTY_PATH 0x00000040
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC 1
#define FSMOUNT_CLOEXEC 1
#endif
#ifndef MOUNT_ATTR_RDONLY
#define MOUNT_ATTR_RDONLY 0x00000001
#define MOUNT_ATTR_NOSUID 0x00000002
#define MOUNT_ATTR_NODEV 0x00000004
#define MOUNT_ATTR_NOEXEC 0x00000008
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
enum { SBX_FSCONFIG_SET_STRING = 1, SBX_FSCONFIG_CMD_CREATE = 6 };

/* struct mount_attr of <linux/mount.h>, which clashes with <sys/mount.h> in older
 * libcs. */
struct sbx_mount_attr {
    uint64_t attr_set, attr_clr, propagation, userns_fd;
};

#define SBX_RET(call)                \
    ({                               \
        long r_ = (call);            \
        (int)(r_ < 0 ? -errno : r_); \
    })

static inline int sbx_openat2(int dirfd, const char *path, uint64_t flags,
                              uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return SBX_RET(syscall(SYS_openat2, dirfd, path, &how, sizeof how));
}

static inline int sbx_open_tree(int dirfd, const char *path, unsigned flags)
{
    return SBX_RET(syscall(428, dirfd, path, flags));
}

static inline int sbx_move_mount(int from_fd, int to_fd)
{
    return SBX_RET(syscall(429, from_fd, "", to_fd, "",
                           MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static inline int sbx_fsopen(const char *fs)
{
    return SBX_RET(syscall(430, fs, FSOPEN_CLOEXEC));
}

static inline int sbx_fsconfig(int fd, unsigned cmd, const char *key, const char *value)
{
    return SBX_RET(syscall(431, fd, cmd, key, value, 0));
}

static inline int sbx_fsmount(int fd, unsigned attr)
{
    return SBX_RET(syscall(432, fd, FSMOUNT_CLOEXEC, attr));
}

static inline int sbx_mount_setattr(int fd, const char *path, unsigned flags,
                                    struct sbx_mount_attr *attr)
{
    return SBX_RET(syscall(442, fd, path, flags, attr, sizeof *attr));
}

static inline int sbx_pidfd_open(int pid)
{
    return SBX_RET(syscall(434, pid, 0));
}

static inline int sbx_pidfd_kill(int pidfd, int sig)
{
    return SBX_RET(syscall(424, pidfd, sig, 0, 0));
}

static inline int sbx_close_range(unsigned first, unsigned last, unsigned flags)
{
    return SBX_RET(syscall(436, first, last, flags));
}

/* A time in a struct rusage, in microseconds. */
static inline uint64_t sbx_time_us(const struct timeval *t)
{
    return (uint64_t)t->tv_sec * 1000000u + (uint64_t)t->tv_usec;
}

#endif
