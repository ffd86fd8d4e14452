/* cgroup_v1.c - cgroup v1 behind cgroup.h: one directory per hierarchy. Runs in broker
 * (parents) and supervisor (slots). Kernel files: Documentation/admin-guide/cgroup-v1/.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "../base/io.h"
#include "cgroup.h"

/* What we use. blkio needs device numbers to limit anything, and jobs die faster than
 * they freeze. */
static const struct {
    const char *name;
    uint32_t bit;
} controllers[] = {{"memory", SBX_CG_MEMORY},
                   {"pids", SBX_CG_PIDS},
                   {"cpu", SBX_CG_CPU},
                   {"cpuacct", SBX_CG_CPUACCT}};

int sbx_cg_v1_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid)
{
    for (unsigned i = 0; i < sizeof controllers / sizeof *controllers; i++) {
        uint32_t have = 0;

        if (cg->have & controllers[i].bit)
            continue; /* mounted together with an earlier one */
        int up = sbx_cg_own_dir("cgroup", controllers[i].name, &have);
        if (up < 0)
            continue;
        sbx_cg_add_dir(cg, up, have & ~cg->have, uid, gid);
    }
    cg->version = cg->n_dirs ? 1 : 0;
    return cg->version ? 0 : -ENOENT;
}

static int v1_open(struct sbx_cg *cg, struct sbx_slot *slot)
{
    for (unsigned i = 0; i < cg->n_dirs; i++) {
        if (slot->dir_fds[i] < 0)
            continue;
        /* `tasks` with "0": the kernel takes no global lock (cgroup_procs_write_start).
         * The opener's uid must be that of the writing task: jobs attach before they
         * change their uid. */
        int fd = openat(slot->dir_fds[i], "tasks", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        slot->attach_fds[slot->n_attach++] = fd;
    }
    return 0;
}

static int write_limit(int dir, const char *file, uint64_t v)
{
    return v == UINT64_MAX ? sbx_write_file(dir, file, "-1")
                           : sbx_cg_write_u64(dir, file, v);
}

static int limit_memory(int dir, uint64_t bytes)
{
    int r;

    /* memsw >= memory at every moment: lift it first. Without swap accounting the file
     * is missing. */
    r = sbx_write_file(dir, "memory.memsw.limit_in_bytes", "-1");
    if (r && r != -ENOENT && r != -EACCES && r != -EOPNOTSUPP)
        return r;
    int has_swap = r == 0;
    r = write_limit(dir, "memory.limit_in_bytes", bytes);
    if (r)
        return r;
    if (has_swap && (r = write_limit(dir, "memory.memsw.limit_in_bytes", bytes)))
        return r;
    r = write_limit(dir, "memory.kmem.tcp.limit_in_bytes", bytes);
    return r == -ENOENT || r == -EOPNOTSUPP ? 0 : r;
}

static int limit_cpu(int dir, uint64_t quota_us)
{
    /* A short period keeps short calls from running far ahead; the kernel's least quota
     * is 1 ms. */
    unsigned div = quota_us != UINT64_MAX && quota_us / 10 >= 1000 ? 10 : 1;
    int r;

    if ((r = sbx_write_file(dir, "cpu.cfs_quota_us", "-1")))
        return r;
    if (quota_us == UINT64_MAX)
        return 0;
    if ((r = sbx_cg_write_u64(dir, "cpu.cfs_period_us", 100000 / div)))
        return r;
    return sbx_cg_write_u64(dir, "cpu.cfs_quota_us",
                            quota_us / div < 1000 ? 1000 : quota_us / div);
}

static int v1_limit(struct sbx_cg *cg, struct sbx_slot *slot,
                    const struct sbx_cg_limits *l)
{
    const struct sbx_cg_limits *old = &slot->limits;
    int dir, r;

    if (l->memory_bytes != old->memory_bytes &&
        (dir = sbx_slot_dir(cg, slot, SBX_CG_MEMORY)) >= 0 &&
        (r = limit_memory(dir, l->memory_bytes)))
        return r;
    if (l->processes != old->processes &&
        (dir = sbx_slot_dir(cg, slot, SBX_CG_PIDS)) >= 0) {
        r = l->processes == UINT64_MAX
                ? sbx_write_file(dir, "pids.max", "max")
                : sbx_cg_write_u64(dir, "pids.max", l->processes);
        if (r)
            return r;
    }
    if (l->cpu_quota_us != old->cpu_quota_us &&
        (dir = sbx_slot_dir(cg, slot, SBX_CG_CPU)) >= 0 &&
        (r = limit_cpu(dir, l->cpu_quota_us)))
        return r;
    return 0;
}

static int v1_usage(struct sbx_cg *cg, struct sbx_slot *slot, struct sbx_cg_usage *u)
{
    int dir, r;

    if ((dir = sbx_slot_dir(cg, slot, SBX_CG_MEMORY)) >= 0) {
        if ((r = sbx_cg_read_u64(dir, "memory.usage_in_bytes", &u->memory_bytes)) ||
            (r = sbx_cg_read_u64(dir, "memory.max_usage_in_bytes", &u->peak_bytes)))
            return r;
        sbx_cg_read_key(dir, "memory.oom_control", "oom_kill", &u->n_oom);
    }
    if ((dir = sbx_slot_dir(cg, slot, SBX_CG_CPUACCT)) >= 0) {
        uint64_t ns = 0;
        if ((r = sbx_cg_read_u64(dir, "cpuacct.usage", &u->cpu_ns)))
            return r;
        if (!sbx_cg_read_u64(dir, "cpuacct.usage_sys", &ns))
            u->system_us = ns / 1000;
        u->user_us =
            u->cpu_ns / 1000 > u->system_us ? u->cpu_ns / 1000 - u->system_us : 0;
    }
    if ((dir = sbx_slot_dir(cg, slot, SBX_CG_PIDS)) >= 0) {
        sbx_cg_read_key(dir, "pids.events", "max", &u->n_pids_refused);
        sbx_cg_read_u64(dir, "pids.peak", &u->peak_processes);
    }
    return 0;
}

static int v1_reset_peak(struct sbx_cg *cg, struct sbx_slot *slot)
{
    int dir = sbx_slot_dir(cg, slot, SBX_CG_MEMORY);

    return dir < 0 ? 0 : sbx_write_file(dir, "memory.max_usage_in_bytes", "0");
}

static int v1_is_empty(struct sbx_cg *cg, struct sbx_slot *slot)
{
    for (unsigned i = 0; i < cg->n_dirs; i++) {
        char buf[32];
        if (slot->dir_fds[i] >= 0 &&
            sbx_read_file(slot->dir_fds[i], "tasks", buf, sizeof buf) != 0)
            return 0;
    }
    return 1;
}

static void v1_shrink(struct sbx_cg *cg, struct sbx_slot *slot)
{
    int dir = sbx_slot_dir(cg, slot, SBX_CG_MEMORY);

    if (dir >= 0)
        sbx_write_file(dir, "memory.force_empty", "0");
}

const struct sbx_cg_ops sbx_cg_v1 = {v1_open,       v1_limit,    v1_usage,
                                     v1_reset_peak, v1_is_empty, v1_shrink};
