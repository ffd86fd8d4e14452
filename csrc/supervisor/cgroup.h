/* cgroup.h - control groups: one small interface over v2, v1 and none.
 *
 * The broker makes one parent directory `agentsbx-<pid>-<starttime>` (v1: one per
 * hierarchy) below its own group, gives it to the supervisor's uid and holds a lock on
 * it; it removes the tree after the supervisor's death, and the trees of dead brokers
 * before. The supervisor makes *slots* inside: one group (set) for one job at a time.
 * The host process is never moved.
 *
 * A slot is reused only when the last job's processes are all dead and its memory is
 * back near the baseline with the peak reset, else it is removed: what one job left
 * must not count as the next job's. Owners: broker (parents), supervisor (slots). No
 * function allocates.
 */
#ifndef SBX_CGROUP_H
#define SBX_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "../base/wire.h"

enum {
    SBX_MAX_SLOTS = 2048,
    SBX_CG_SLACK_BYTES = 1 << 20,
    SBX_CG_SHRINK_BYTES = 32 << 20
};

/* One directory that we made, with the controllers that it has. */
struct sbx_cg_dir {
    int up_fd;     /* directory that it lies in (broker only) */
    int fd;        /* the directory */
    uint32_t have; /* enum sbx_cgroup_want */
};

struct sbx_cg {
    int version;   /* 0 none, 1, 2 */
    uint32_t have; /* union of the directories' bits */
    unsigned n_dirs;
    char name[64];
    struct sbx_cg_dir dirs[SBX_MAX_CGROUP_FDS];
};

struct sbx_cg_limits {
    uint64_t memory_bytes, cpu_quota_us, processes;
};

struct sbx_cg_usage {
    uint64_t cpu_ns, user_us, system_us; /* since slot_get */
    uint64_t memory_bytes, peak_bytes;
    uint64_t peak_processes;        /* 0 = not known */
    uint64_t n_oom, n_pids_refused; /* since slot_get */
};

enum sbx_slot_state { SLOT_FREE = 0, SLOT_IDLE, SLOT_BUSY, SLOT_DRAINING };

struct sbx_slot {
    uint64_t serial;
    struct sbx_cg_limits limits;
    int dir_fds[SBX_MAX_CGROUP_FDS]; /* as sbx_cg.dirs; -1: this slot has none there */
    int attach_fds[SBX_MAX_CGROUP_FDS]; /* a job writes "0" to each of the n_attach */
    unsigned n_attach;
    int peak_fd; /* v2: memory.peak, its peak is per open file */
    unsigned n_drains;
    enum sbx_slot_state state;
    uint64_t baseline_bytes, drain_ns;
    struct sbx_cg_usage base; /* counters at slot_get */
};

/* -- broker ----------------------------------------------------------------------- */
/* Make the parents, owned by uid/gid (UINT32_MAX: as they are). cg->version stays 0
 * where it cannot. */
void sbx_cg_make_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid);
/* v2: the supervisor moves into a leaf of the parent, so that its children may move on
 * into slots. */
int sbx_cg_adopt(struct sbx_cg *cg, pid_t supervisor);
void sbx_cg_remove_parents(struct sbx_cg *cg);

/* -- supervisor ------------------------------------------------------------------- */
/* A slot with these limits, not used by any job. NULL: none to be had, *err says why.
 */
struct sbx_slot *sbx_slot_get(struct sbx_cg *cg, const struct sbx_cg_limits *limits,
                              int *err);
int sbx_slot_usage(struct sbx_cg *cg, struct sbx_slot *slot,
                   struct sbx_cg_usage *usage);
void sbx_slot_put(struct sbx_cg *cg, struct sbx_slot *slot);
/* Look again at slots that were not clean at slot_put. Returns when to come back (ns),
 * 0 = never. */
uint64_t sbx_slot_tick(struct sbx_cg *cg, uint64_t now_ns);

/* -- the two versions (cgroup_v1.c, cgroup_v2.c) ---------------------------------- */
struct sbx_cg_ops {
    int (*open)(struct sbx_cg *cg,
                struct sbx_slot *slot); /* directories are made: attach files */
    int (*limit)(struct sbx_cg *cg, struct sbx_slot *slot,
                 const struct sbx_cg_limits *limits);
    int (*usage)(struct sbx_cg *cg, struct sbx_slot *slot,
                 struct sbx_cg_usage *raw); /* since creation */
    int (*reset_peak)(struct sbx_cg *cg, struct sbx_slot *slot);
    int (*is_empty)(struct sbx_cg *cg, struct sbx_slot *slot);
    void (*shrink)(struct sbx_cg *cg,
                   struct sbx_slot *slot); /* try to give cache back */
};
extern const struct sbx_cg_ops sbx_cg_v1, sbx_cg_v2;
int sbx_cg_v1_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid);
int sbx_cg_v2_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid);

/* -- shared by them --------------------------------------------------------------- */
/* The slot's or parent's directory that has controller `want`, or -1. */
int sbx_slot_dir(const struct sbx_cg *cg, const struct sbx_slot *slot, uint32_t want);
int sbx_cg_read_u64(int dir_fd, const char *file, uint64_t *v);
int sbx_cg_write_u64(int dir_fd, const char *file, uint64_t v);
/* Number behind `key ` at the start of a line of the file. -ENOENT if missing. */
int sbx_cg_read_key(int dir_fd, const char *file, const char *key, uint64_t *v);
/* Open the directory of our own group in the mounted hierarchy: fstype "cgroup" with
 * controller, or "cgroup2" (controller NULL). Also all controllers mounted together
 * with it. */
int sbx_cg_own_dir(const char *fstype, const char *controller, uint32_t *have);
/* mkdir `cg->name` in up_fd (taken), lock it, chown it; append to cg->dirs. */
int sbx_cg_add_dir(struct sbx_cg *cg, int up_fd, uint32_t have, uint32_t uid,
                   uint32_t gid);

#endif
