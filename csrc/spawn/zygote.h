/* zygote.h - the serve loop of a zygote: keeps pools of one template, forks a job per
 * request.
 *
 * Runs in the zygote only: single-threaded, pid 1 of its pid namespace, never runs user
 * code, talks to the supervisor alone. The Python zygote calls it through csrc/py with
 * hooks that run CPython's fork protocol; the command zygote (csrc/reaper/main) has
 * none.
 *
 * A child is always born of libc fork() (law 7) after unshare(CLONE_NEWPID), and the
 * zygote then returns to its own pid namespace for the next one.
 */
#ifndef SBX_ZYGOTE_H
#define SBX_ZYGOTE_H

#include <stdint.h>

#include "../base/err.h"

struct sbx_fork_hooks {
    void (*before)(void);       /* in the zygote, before fork */
    void (*after_parent)(void); /* in the zygote, after */
};

/* What the child of a fork learns: its fds are SBX_JOB_CHANNEL and, if version != 0,
 * SBX_JOB_SNAPSHOT. */
struct sbx_job_info {
    uint64_t job_id, version;
    uint32_t cpu; /* where to wait: see sbx_cpu_wait_on */
};

/* Serve until the supervisor closes the socket. Returns 0 then (exit), 1 in a forked
 * job whose walls are all up (*info filled), or -errno when the socket or the pid
 * namespace cannot be used. */
int sbx_zygote_serve(int sock, const struct sbx_fork_hooks *hooks,
                     struct sbx_job_info *info);

#endif
