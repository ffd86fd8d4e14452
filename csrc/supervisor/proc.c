/* proc.c - see proc.h. */
#include "proc.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "../base/io.h"
#include "../base/sys.h"

pid_t sbx_proc_clone(uint64_t flags, int *pidfd)
{
    int fd = -1;
    /* The first three arguments have one order on x86_64 and aarch64; the others are 0.
     */
    int r = SBX_RET(syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, 0L, &fd, 0L, 0L));

    if (r > 0)
        *pidfd = fd;
    return r;
}

int sbx_proc_is_dead(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

int sbx_proc_write(pid_t pid, const char *name, const char *text)
{
    char path[64], num[24];

    strcpy(path, "/proc/");
    strcat(path, sbx_u64_str((uint64_t)pid, num));
    strcat(path, "/");
    strcat(path, name);
    return sbx_write_file(AT_FDCWD, path, text);
}

static const char *map_line(char *buf, uint32_t inside, uint32_t outside, uint32_t n)
{
    char num[24];

    strcpy(buf, sbx_u64_str(inside, num));
    strcat(strcat(buf, " "), sbx_u64_str(outside, num));
    return strcat(strcat(buf, " "), sbx_u64_str(n, num));
}

int sbx_proc_map_ids(pid_t pid, uint32_t inside_uid, uint32_t outside_uid,
                     uint32_t inside_gid, uint32_t outside_gid, uint32_t n,
                     int has_setgroups)
{
    char line[64];
    int r = sbx_proc_write(pid, "uid_map", map_line(line, inside_uid, outside_uid, n));

    if (!r && !has_setgroups)
        r = sbx_proc_write(pid, "setgroups", "deny");
    return r ? r
             : sbx_proc_write(pid, "gid_map",
                              map_line(line, inside_gid, outside_gid, n));
}

int sbx_proc_landlock_abi(void)
{
    int abi = SBX_RET(
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION));

    if (abi < 0) /* not built in, switched off, or hidden by a container's filter */
        return abi == -ENOSYS || abi == -EOPNOTSUPP || abi == -EPERM ? 0 : abi;
    return abi;
}

int sbx_proc_keep_caps(uint64_t keep)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    for (int c = 0; c < 64; c++) {
        int r = prctl(PR_CAPBSET_READ, c, 0, 0, 0);
        if (r < 0)
            break;
        if (r == 1 && !(keep >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0))
            return -errno;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return -errno;
    for (int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted = (uint32_t)(keep >> (32 * i));
    return SBX_RET(syscall(SYS_capset, &head, data));
}
