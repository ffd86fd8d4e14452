/* child.h - what runs between fork and user data: the walls go up here.
 *
 * CONTRACT. Everything in csrc/child/ runs in a process that was just forked from a
 * zygote (job) or cloned from the supervisor (template). Until it returns or execs it
 * may use raw system calls and fixed buffers only: no malloc, no stdio, no locks, no
 * Python (law 3; tests/contract reads the object files' symbols). The plan was checked
 * before the fork. The first failure stops everything: nothing is skipped, nothing is
 * tried another way (law 4).
 *
 * Errors: 0 or -errno with (stage, op index, errno) in *e, left untouched on success.
 */
#ifndef SBX_CHILD_H
#define SBX_CHILD_H

#include <stdint.h>

#include "../base/err.h"
#include "../plan/plan.h"

/* State of one set-up. Lives on the stack of the child; owned by nobody else. */
struct sbx_setup {
    const struct sbx_plan *plan;
    uint64_t pool_id; /* job: names its mounts under SBX_POOL_DIR */
    /* template: detached mounts; moved, stay owned by the caller */
    const int *mount_fds;
    unsigned n_mount_fds;
    uint32_t uid_index; /* job: id in the zygote's user namespace */
    int root_fd;        /* root of the tree being built, O_PATH */
    int proc_fd;        /* job: the zygote's own writable /proc, for maps and sysctls */
    const struct sbx_op *nofile; /* job: RLIMIT_NOFILE, set after READY (see child.c) */
    int listener_fd;             /* job: seccomp listener, -1 if none */
};

/* Everything a job needs besides the plan. All fds are consumed. */
struct sbx_job_start {
    const struct sbx_plan *plan;
    uint64_t pool_id, job_id, version;
    uint32_t uid_index;
    int zygote_sock;       /* for READY; closed before user data */
    int channel, out, err; /* become 3, 1, 2 */
    int snapshot;          /* becomes 4, or -1 */
    int cgroup_fds[8];
    unsigned n_cgroup_fds;
};

enum { SBX_JOB_CHANNEL = 3, SBX_JOB_SNAPSHOT = 4 };

/* In the forked job: put up every wall of the plan, prove them, report READY, close all
 * fds but 0-3 (and 4 if a snapshot came). On failure the record is sent with READY and
 * the process ends: this function returns only with all walls up. */
void sbx_child_job(struct sbx_job_start *start);

/* In a process that the supervisor cloned into new namespaces with its id maps written:
 * build the base tree and execute the zygote program, with zygote_sock as fd 3.
 * is_command: execute the program behind self_exe_fd (our own binary) instead of the
 * plan's path. Returns only on failure. */
int sbx_child_template(const struct sbx_plan *plan, const int *mount_fds,
                       unsigned n_mounts, int zygote_sock, int is_command,
                       int self_exe_fd, struct sbx_err *e);

/* Wait for the call on that CPU (1 + its number; 0: anywhere), where the host's thread
 * is: a wake-up across CPUs costs more than all else in a call. Then back to all that
 * this process may use, before user code. */
void sbx_cpu_wait_on(uint32_t cpu);
void sbx_cpu_release(void);

/* -- steps, one file a family; each runs the ops of its kinds --------------------- */

int sbx_tree_op(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                struct sbx_err *e);
int sbx_ids_enter(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                  struct sbx_err *e);
int sbx_ids_sysctl(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                   struct sbx_err *e);
int sbx_limits_rlimit(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                      struct sbx_err *e);
int sbx_limits_cpus(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                    struct sbx_err *e);
int sbx_limits_caps(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                    struct sbx_err *e);
int sbx_walls_landlock(struct sbx_setup *s, unsigned first, unsigned *next,
                       struct sbx_err *e);
int sbx_walls_seccomp(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                      struct sbx_err *e);
int sbx_walls_canary(struct sbx_setup *s, const struct sbx_op *op, unsigned i,
                     struct sbx_err *e);
/* Close every fd from `first` on and prove by /proc/self/fd that only 0 .. first-1 are
 * open. */
int sbx_fds_close(unsigned first, struct sbx_err *e);
/* Pid 1 ignores deadly signals sent from inside: catch them, say so on the channel,
 * die. */
void sbx_signals_install(void);
void sbx_signals_reset(void); /* all handlers to default, mask empty (before exec) */

#endif
