/* pools.h - what a zygote keeps of its pools: a checked plan and mounts parked under
 * SBX_POOL_DIR.
 *
 * Zygote only. The plan is mapped read-only from its sealed memfd and stays mapped in
 * the jobs of that pool, who may read it (it holds no secret) and cannot change it.
 */
#ifndef SBX_POOLS_H
#define SBX_POOLS_H

#include <stddef.h>

#include "../base/wire.h"
#include "../plan/plan.h"

enum { SBX_MAX_POOLS = 64 }; /* the host's LRU keeps below it */

struct sbx_pools {
    struct {
        uint64_t id;
        const struct sbx_plan *plan;
        size_t n_bytes;
        unsigned n_mounts;
    } slots[SBX_MAX_POOLS];
};

/* fds: job plan (sealed memfd), then m->n_mounts detached mounts. Nothing is consumed.
 * On failure nothing is kept. ENOSPC: too many pools. EBADMSG: the memfd is not sealed.
 */
int sbx_pools_add(struct sbx_pools *p, const struct sbx_pool *m, const int *fds,
                  unsigned n_fds, struct sbx_err *e);
void sbx_pools_drop(struct sbx_pools *p, uint64_t id);
/* In a job: forget the plans of all others, which name what other tenants were granted.
 */
void sbx_pools_keep_only(struct sbx_pools *p, uint64_t id);
const struct sbx_plan *sbx_pools_plan(const struct sbx_pools *p,
                                      uint64_t id); /* NULL: unknown */

/* Map a sealed memfd that holds a plan of `kind` and check it. NULL with *e set on
 * failure. */
const struct sbx_plan *sbx_plan_map(int fd, uint32_t kind, size_t *n_bytes,
                                    struct sbx_err *e);

#endif
