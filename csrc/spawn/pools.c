/* pools.c - see pools.h. */
#include "pools.h"

#include "../base/io.h"
#include "../base/sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

const struct sbx_plan *sbx_plan_map(int fd, uint32_t kind, size_t *n_bytes,
                                    struct sbx_err *e)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    void *map;

    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 ||
        st.st_size <= 0 || st.st_size > SBX_MAX_PLAN) {
        sbx_fail(e, SBX_STAGE_PLAN, 0, EBADMSG);
        return NULL;
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) {
        sbx_fail(e, SBX_STAGE_PLAN, 0, errno);
        return NULL;
    }
    if (sbx_plan_check(map, (size_t)st.st_size, kind, e) < 0) {
        munmap(map, (size_t)st.st_size);
        return NULL;
    }
    *n_bytes = (size_t)st.st_size;
    return map;
}

static void pool_path(char *buf, uint64_t id, unsigned index, int has_index)
{
    char num[24];

    strcpy(buf, SBX_POOL_DIR "/");
    strcat(buf, sbx_u64_str(id, num));
    if (has_index) {
        strcat(buf, "/");
        strcat(buf, sbx_u64_str(index, num));
    }
}

static int park(uint64_t id, unsigned index, int mount_fd)
{
    char path[96];
    struct stat st;

    pool_path(path, id, index, 1);
    if (fstat(mount_fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode) ? mkdir(path, 0700) < 0
                            : mknod(path, S_IFREG | 0400, 0) < 0)
        return -errno;
    SBX_FD int to = open(path, O_PATH | O_CLOEXEC);
    return to < 0 ? -errno : sbx_move_mount(mount_fd, to);
}

static void unpark(uint64_t id, unsigned n_mounts)
{
    char path[96];

    for (unsigned i = 0; i < n_mounts; i++) {
        pool_path(path, id, i, 1);
        (void)umount2(path, MNT_DETACH);
        if (rmdir(path) < 0)
            (void)unlink(path);
    }
    pool_path(path, id, 0, 0);
    (void)rmdir(path);
}

int sbx_pools_add(struct sbx_pools *p, const struct sbx_pool *m, const int *fds,
                  unsigned n_fds, struct sbx_err *e)
{
    unsigned k = 0;
    char path[96];

    if (n_fds != 1 + m->n_mounts || m->pool_id == 0 || sbx_pools_plan(p, m->pool_id))
        return sbx_fail(e, SBX_STAGE_PROTOCOL, 0, EPROTO);
    while (k < SBX_MAX_POOLS && p->slots[k].id)
        k++;
    if (k == SBX_MAX_POOLS)
        return sbx_fail(e, SBX_STAGE_PLAN, 0, ENOSPC);
    p->slots[k].plan = sbx_plan_map(fds[0], SBX_PLAN_JOB, &p->slots[k].n_bytes, e);
    if (!p->slots[k].plan)
        return -EINVAL;
    p->slots[k].id = m->pool_id;
    p->slots[k].n_mounts = m->n_mounts;
    pool_path(path, m->pool_id, 0, 0);
    int r = mkdir(path, 0700) < 0 ? -errno : 0;
    unsigned i = 0;
    while (r == 0 && i < m->n_mounts)
        if ((r = park(m->pool_id, i, fds[1 + i])) == 0)
            i++;
    if (r < 0) {
        sbx_fail(e, SBX_STAGE_MOUNT, i, r);
        sbx_pools_drop(p, m->pool_id);
    }
    return r;
}

static void forget(struct sbx_pools *p, unsigned k)
{
    munmap((void *)p->slots[k].plan, p->slots[k].n_bytes);
    memset(&p->slots[k], 0, sizeof p->slots[k]);
}

void sbx_pools_drop(struct sbx_pools *p, uint64_t id)
{
    for (unsigned k = 0; k < SBX_MAX_POOLS; k++)
        if (id && p->slots[k].id == id) {
            unpark(id, p->slots[k].n_mounts);
            forget(p, k);
        }
}

void sbx_pools_keep_only(struct sbx_pools *p, uint64_t id)
{
    for (unsigned k = 0; k < SBX_MAX_POOLS; k++)
        if (p->slots[k].id && p->slots[k].id != id)
            forget(p, k);
}

const struct sbx_plan *sbx_pools_plan(const struct sbx_pools *p, uint64_t id)
{
    for (unsigned k = 0; k < SBX_MAX_POOLS; k++)
        if (id && p->slots[k].id == id)
            return p->slots[k].plan;
    return NULL;
}
