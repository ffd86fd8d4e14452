/* cgroup.c - the supervisor's slots (see cgroup.h), the same for both versions. */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/io.h"

enum { DRAIN_TRIES = 20 };
static const uint64_t DRAIN_NS = 5000000;

static struct sbx_slot slots[SBX_MAX_SLOTS];
static uint64_t last_serial;
static unsigned n_draining, n_used; /* slots[0 .. n_used) have been used */

static const struct sbx_cg_ops *ops(const struct sbx_cg *cg)
{
    return cg->version == 2 ? &sbx_cg_v2 : &sbx_cg_v1;
}

int sbx_slot_dir(const struct sbx_cg *cg, const struct sbx_slot *slot, uint32_t want)
{
    for (unsigned i = 0; i < cg->n_dirs; i++)
        if (cg->dirs[i].have & want)
            return slot->dir_fds[i];
    return -1;
}

int sbx_cg_read_u64(int dir_fd, const char *file, uint64_t *v)
{
    char buf[32];
    ssize_t n = sbx_read_file(dir_fd, file, buf, sizeof buf);

    return n < 0 ? (int)n : sbx_parse_u64(buf, v);
}

int sbx_cg_write_u64(int dir_fd, const char *file, uint64_t v)
{
    char num[24];

    return sbx_write_file(dir_fd, file, sbx_u64_str(v, num));
}

int sbx_cg_read_key(int dir_fd, const char *file, const char *key, uint64_t *v)
{
    char buf[2048];
    size_t n_key = strlen(key);
    ssize_t n = sbx_read_file(dir_fd, file, buf, sizeof buf);

    if (n < 0)
        return (int)n;
    for (char *p = buf; p && *p; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (!strncmp(p, key, n_key) && p[n_key] == ' ')
            return sbx_parse_u64(p + n_key + 1, v);
    }
    return -ENOENT;
}

static const char *slot_name(const struct sbx_slot *slot, char buf[32])
{
    char num[24];

    strcpy(buf, "slot-");
    return strcat(buf, sbx_u64_str(slot->serial, num));
}

/* Close and rmdir. 0 when every directory is gone; else the slot must drain on. */
static int slot_remove(struct sbx_cg *cg, struct sbx_slot *slot)
{
    char name[32];
    int left = 0;

    for (unsigned i = 0; i < slot->n_attach; i++)
        sbx_close(&slot->attach_fds[i]);
    slot->n_attach = 0;
    sbx_close(&slot->peak_fd);
    for (unsigned i = 0; i < cg->n_dirs; i++) {
        sbx_close(&slot->dir_fds[i]);
        if (unlinkat(cg->dirs[i].fd, slot_name(slot, name), AT_REMOVEDIR) &&
            errno != ENOENT)
            left++;
    }
    if (!left)
        slot->state = SLOT_FREE;
    return left ? -EBUSY : 0;
}

/* A slot that cannot be used: what of it cannot go at once drains. */
static void give_up(struct sbx_cg *cg, struct sbx_slot *slot)
{
    if (slot_remove(cg, slot) == 0)
        return;
    slot->state = SLOT_DRAINING;
    slot->n_drains = 0;
    slot->drain_ns = sbx_now_ns() + DRAIN_NS;
    n_draining++;
}

static int slot_make(struct sbx_cg *cg, struct sbx_slot *slot)
{
    char name[32];
    int r = 0;

    *slot = (struct sbx_slot){.serial = ++last_serial,
                              .limits = {UINT64_MAX, UINT64_MAX, UINT64_MAX},
                              .peak_fd = -1,
                              .baseline_bytes = UINT64_MAX,
                              .state = SLOT_BUSY};
    for (unsigned i = 0; i < SBX_MAX_CGROUP_FDS; i++)
        slot->dir_fds[i] = slot->attach_fds[i] = -1;
    slot_name(slot, name);
    for (unsigned i = 0; i < cg->n_dirs && !r; i++) {
        if (mkdirat(cg->dirs[i].fd, name, 0755) ||
            (slot->dir_fds[i] =
                 openat(cg->dirs[i].fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            r = -errno;
    }
    if (!r)
        r = ops(cg)->open(cg, slot);
    if (r)
        give_up(cg, slot);
    return r;
}

static struct sbx_slot *find(const struct sbx_cg_limits *limits)
{
    struct sbx_slot *best = NULL;

    for (unsigned i = 0; i < n_used; i++) {
        if (slots[i].state != SLOT_IDLE)
            continue;
        if (!memcmp(&slots[i].limits, limits, sizeof *limits))
            return &slots[i];
        best = &slots[i];
    }
    return best;
}

struct sbx_slot *sbx_slot_get(struct sbx_cg *cg, const struct sbx_cg_limits *limits,
                              int *err)
{
    struct sbx_slot *slot = find(limits);
    int r = 0;

    if (!slot) {
        for (unsigned i = 0; i < SBX_MAX_SLOTS && !slot; i++)
            if (slots[i].state == SLOT_FREE)
                slot = &slots[i];
        if (!slot) {
            *err = ENOSPC;
            return NULL;
        }
        if ((unsigned)(slot - slots) >= n_used)
            n_used = (unsigned)(slot - slots) + 1;
        r = slot_make(cg, slot);
    }
    if (!r && memcmp(&slot->limits, limits, sizeof *limits) != 0) {
        r = ops(cg)->limit(cg, slot, limits);
        slot->limits = *limits;
        if (r)
            give_up(cg, slot);
    }
    if (!r) {
        memset(&slot->base, 0, sizeof slot->base);
        r = ops(cg)->usage(cg, slot, &slot->base);
        /* The baseline is that of the new group: it must not creep up. */
        if (slot->baseline_bytes == UINT64_MAX)
            slot->baseline_bytes = slot->base.memory_bytes;
        if (r)
            give_up(cg, slot);
    }
    if (r) {
        *err = -r;
        return NULL;
    }
    slot->state = SLOT_BUSY;
    slot->n_drains = 0;
    return slot;
}

int sbx_slot_usage(struct sbx_cg *cg, struct sbx_slot *slot, struct sbx_cg_usage *u)
{
    memset(u, 0, sizeof *u);
    int r = ops(cg)->usage(cg, slot, u);

    if (r)
        return r;
    u->cpu_ns -= slot->base.cpu_ns;
    u->user_us -= slot->base.user_us < u->user_us ? slot->base.user_us : u->user_us;
    u->system_us -= slot->base.system_us;
    u->n_oom -= slot->base.n_oom;
    u->n_pids_refused -= slot->base.n_pids_refused;
    /* pids.peak cannot be reset: on a reused slot it says nothing unless this job
     * raised it */
    if (u->peak_processes <= slot->base.peak_processes)
        u->peak_processes = 0;
    return 0;
}

/* 1: idle again, 0: not yet. *extra_bytes: what is charged beyond the baseline. */
static int is_clean(struct sbx_cg *cg, struct sbx_slot *slot, uint64_t *extra_bytes)
{
    struct sbx_cg_usage u = {0};

    *extra_bytes = UINT64_MAX;
    if (!ops(cg)->is_empty(cg, slot) || ops(cg)->usage(cg, slot, &u))
        return 0;
    *extra_bytes = u.memory_bytes > slot->baseline_bytes
                       ? u.memory_bytes - slot->baseline_bytes
                       : 0;
    return u.memory_bytes <= slot->baseline_bytes + SBX_CG_SLACK_BYTES &&
           ops(cg)->reset_peak(cg, slot) == 0;
}

void sbx_slot_put(struct sbx_cg *cg, struct sbx_slot *slot)
{
    uint64_t extra;

    if (is_clean(cg, slot, &extra)) {
        slot->state = SLOT_IDLE;
        return;
    }
    slot->state = SLOT_DRAINING;
    slot->drain_ns = sbx_now_ns() + DRAIN_NS;
    n_draining++;
}

static void drain(struct sbx_cg *cg, struct sbx_slot *slot, uint64_t now_ns)
{
    uint64_t extra;

    slot->n_drains++;
    slot->drain_ns = now_ns + DRAIN_NS * slot->n_drains;
    if (slot->n_attach) { /* not given up yet */
        if (is_clean(cg, slot, &extra)) {
            slot->state = SLOT_IDLE;
            n_draining--;
            return;
        }
        /* Giving back a lot of page cache would take our one thread long: such a group
         * goes instead. */
        if (slot->n_drains == 2 && extra <= SBX_CG_SHRINK_BYTES)
            ops(cg)->shrink(cg, slot);
        if (slot->n_drains < DRAIN_TRIES / 4)
            return;
    }
    if (slot_remove(cg, slot) == 0 || slot->n_drains > DRAIN_TRIES * 10) {
        /* at worst the broker removes the directory at the end */
        slot->state = SLOT_FREE;
        n_draining--;
    }
}

uint64_t sbx_slot_tick(struct sbx_cg *cg, uint64_t now_ns)
{
    uint64_t next = 0;

    for (unsigned i = 0; n_draining && i < n_used; i++) {
        struct sbx_slot *slot = &slots[i];
        if (slot->state == SLOT_DRAINING && slot->drain_ns <= now_ns)
            drain(cg, slot, now_ns);
        if (slot->state == SLOT_DRAINING && (!next || slot->drain_ns < next))
            next = slot->drain_ns;
    }
    return next;
}
