/* cgroup_v2.c - cgroup v2 behind cgroup.h: one directory with all controllers. Runs in
 * broker (parents) and supervisor (slots). Kernel files:
 * Documentation/admin-guide/cgroup-v2.rst. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/io.h"
#include "cgroup.h"

static uint32_t words(int dir, const char *file)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } known[] = {{"memory", SBX_CG_MEMORY}, {"pids", SBX_CG_PIDS}, {"cpu", SBX_CG_CPU}};
    char buf[256], *rest = buf, *word;
    uint32_t have = 0;

    if (sbx_read_file(dir, file, buf, sizeof buf) < 0)
        return 0;
    while ((word = strsep(&rest, " \n")))
        for (unsigned i = 0; i < 3; i++)
            if (!strcmp(word, known[i].name))
                have |= known[i].bit;
    return have;
}

/* Controllers that children of dir get, after trying to enable them. */
static uint32_t enable(int dir)
{
    static const char *const names[] = {"+memory", "+pids", "+cpu"};
    static const uint32_t bits[] = {SBX_CG_MEMORY, SBX_CG_PIDS, SBX_CG_CPU};
    uint32_t on = words(dir, "cgroup.subtree_control"),
             can = words(dir, "cgroup.controllers");

    for (unsigned i = 0; i < 3; i++)
        if (!(on & bits[i]) && (can & bits[i]))
            sbx_write_file(dir, "cgroup.subtree_control", names[i]);
    return words(dir, "cgroup.subtree_control");
}

int sbx_cg_v2_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid)
{
    enum { NEED = SBX_CG_MEMORY | SBX_CG_PIDS };
    uint32_t have = 0;
    SBX_FD int dir = sbx_cg_own_dir("cgroup2", NULL, &have);

    if (dir < 0)
        return dir;
    /* A group with processes cannot enable controllers for children (EBUSY): then a
     * group further up may already have, and where it is ours to write we put our
     * parent beside our own group. */
    for (int level = 0; level < 16 && (words(dir, "cgroup.controllers") & NEED) == NEED;
         level++) {
        if ((enable(dir) & NEED) == NEED) {
            int r = sbx_cg_add_dir(cg, fcntl(dir, F_DUPFD_CLOEXEC, 3), 0, uid, gid);
            if (r == 0)
                break;
        }
        int up = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (up < 0)
            return -errno;
        sbx_close(&dir);
        dir = up;
    }
    if (!cg->n_dirs)
        return -ENOENT;
    int fd = cg->dirs[0].fd;
    have = enable(fd);
    if ((have & NEED) != NEED || mkdirat(fd, "supervisor", 0755)) {
        sbx_cg_remove_parents(cg);
        return -ENOENT;
    }
    if (uid != UINT32_MAX && fchownat(fd, "cgroup.procs", uid, gid, 0)) {
        sbx_cg_remove_parents(cg);
        return -EACCES;
    }
    /* cpu.stat counts without a controller */
    cg->dirs[0].have = cg->have = have | SBX_CG_CPUACCT;
    cg->version = 2;
    return 0;
}

static int v2_open(struct sbx_cg *cg, struct sbx_slot *slot)
{
    (void)cg;
    int fd = openat(slot->dir_fds[0], "cgroup.procs", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    slot->attach_fds[slot->n_attach++] = fd;
    sbx_write_file(slot->dir_fds[0], "memory.oom.group", "1");
    slot->peak_fd = openat(slot->dir_fds[0], "memory.peak", O_RDWR | O_CLOEXEC);
    return 0;
}

static int write_max(int dir, const char *file, uint64_t v)
{
    return v == UINT64_MAX ? sbx_write_file(dir, file, "max")
                           : sbx_cg_write_u64(dir, file, v);
}

static int v2_limit(struct sbx_cg *cg, struct sbx_slot *slot,
                    const struct sbx_cg_limits *l)
{
    int dir = slot->dir_fds[0], r;

    if ((r = write_max(dir, "memory.max", l->memory_bytes)))
        return r;
    r = l->memory_bytes == UINT64_MAX ? 0 : sbx_write_file(dir, "memory.swap.max", "0");
    if (r && r != -ENOENT)
        return r;
    if ((r = write_max(dir, "pids.max", l->processes)))
        return r;
    if (!(cg->have & SBX_CG_CPU))
        return 0;
    char text[64], num[24];
    unsigned div =
        l->cpu_quota_us != UINT64_MAX && l->cpu_quota_us / 10 >= 1000 ? 10 : 1;
    uint64_t quota = l->cpu_quota_us / div < 1000 ? 1000 : l->cpu_quota_us / div;

    strcpy(text, l->cpu_quota_us == UINT64_MAX ? "max" : sbx_u64_str(quota, num));
    strcat(text, div == 10 ? " 10000" : " 100000");
    return sbx_write_file(dir, "cpu.max", text);
}

static int v2_usage(struct sbx_cg *cg, struct sbx_slot *slot, struct sbx_cg_usage *u)
{
    int dir = slot->dir_fds[0], r;
    char buf[32];
    uint64_t us = 0;
    (void)cg;

    if ((r = sbx_cg_read_key(dir, "cpu.stat", "usage_usec", &us)))
        return r;
    u->cpu_ns = us * 1000;
    sbx_cg_read_key(dir, "cpu.stat", "user_usec", &u->user_us);
    sbx_cg_read_key(dir, "cpu.stat", "system_usec", &u->system_us);
    if ((r = sbx_cg_read_u64(dir, "memory.current", &u->memory_bytes)))
        return r;
    ssize_t n = slot->peak_fd < 0 ? -1 : pread(slot->peak_fd, buf, sizeof buf - 1, 0);
    if (n > 0) {
        buf[n] = 0;
        sbx_parse_u64(buf, &u->peak_bytes);
    } else if (sbx_cg_read_u64(dir, "memory.peak", &u->peak_bytes)) {
        u->peak_bytes = u->memory_bytes; /* before 5.19 */
    }
    sbx_cg_read_key(dir, "memory.events", "oom_kill", &u->n_oom);
    sbx_cg_read_key(dir, "pids.events", "max", &u->n_pids_refused);
    sbx_cg_read_u64(dir, "pids.peak", &u->peak_processes);
    return 0;
}

static int v2_reset_peak(struct sbx_cg *cg, struct sbx_slot *slot)
{
    (void)cg; /* since 6.12; where it fails the slot is made anew */
    return slot->peak_fd >= 0 && write(slot->peak_fd, "reset\n", 6) == 6 ? 0 : -ENOTSUP;
}

static int v2_is_empty(struct sbx_cg *cg, struct sbx_slot *slot)
{
    uint64_t populated = 1;
    (void)cg;

    return !sbx_cg_read_key(slot->dir_fds[0], "cgroup.events", "populated",
                            &populated) &&
           !populated;
}

static void v2_shrink(struct sbx_cg *cg, struct sbx_slot *slot)
{
    (void)cg;
    (void)slot;
}

const struct sbx_cg_ops sbx_cg_v2 = {v2_open,       v2_limit,    v2_usage,
                                     v2_reset_peak, v2_is_empty, v2_shrink};
