/* broker.h - the process that the host starts: the host's view of the file system, and
 * clean-up.
 *
 * It makes a mount namespace of its own, control groups if it can, clones the
 * supervisor into namespaces, then answers SBX_MSG_MOUNT until the host is gone. When
 * the supervisor or the host dies it removes what is left and ends. No job can reach
 * it. Started by root it stays real root (id-mapped mounts need it); the supervisor
 * does not.
 */
#ifndef SBX_BROKER_H
#define SBX_BROKER_H

#include <stdint.h>
#include <sys/types.h>

#include "../base/wire.h"
#include "cgroup.h"

/* Host ids that jobs of a root-started supervisor get: far from users', containers' and
 * nobody's. */
enum { SBX_UID_BASE = 2046820352, SBX_N_UIDS = 4096 };

/* What the broker knows and the supervisor inherits by clone. */
struct sbx_launch {
    int control_fd;   /* supervisor only */
    int broker_fd;    /* broker only */
    int host_pidfd;   /* both */
    int broker_pidfd; /* supervisor: its parent, whose death it must not survive */
    int go_fd; /* supervisor: one byte when its id maps are written; 1 = may use cg */
    int self_exe_fd; /* our own program, through a read-only mount */
    int null_fd;
    int is_root;
    int is_debug; /* keep stderr */
    uint32_t uid_base, n_uids;
    struct sbx_cg cg;
};

/* `agentsbx-launcher broker FD_CONTROL FD_BROKER FD_HOSTPIDFD [--debug]`. Exit status.
 */
int sbx_broker_main(int argc, char **argv);

/* Answer one SBX_MSG_MOUNT on the broker socket. 0, or -errno when the socket is at its
 * end. */
int sbx_mounts_serve(struct sbx_launch *l);

#endif
