/* wire.h - every message that crosses a process boundary, except the call itself.
 *
 * All sockets are AF_UNIX SOCK_SEQPACKET: one send = one message, several threads may
 * send at once. A message is one of the fixed structs below, in native layout (the two
 * ends are always built from one source tree), optionally followed by `n_bytes` of
 * payload, with file descriptors attached by SCM_RIGHTS in exactly the order that the
 * struct's comment gives.
 *
 *   host  --broker socket-->   broker      SBX_MSG_MOUNT (host trusts broker)
 *   host  --control socket-->  supervisor  SBX_MSG_TEMPLATE .. STOP (trusted as well)
 *   supervisor --pool socket--> host       struct sbx_pub (one waiting sandbox each)
 *   supervisor <--zygote socket--> zygote  SBX_MSG_POOL, FORK, .. EXITED
 *   job, only while it is still being set up, --zygote socket--> supervisor: READY
 *
 * The broker is the process that the host starts: it keeps the host's view of the file
 * system (and, started by root, real root), makes the control groups' parent, starts
 * the supervisor in namespaces of its own, answers MOUNT, and cleans up after the
 * supervisor's death. No job can reach it.
 *
 * Requests that have an answer carry a *reply socket* as their last fd (one end of a
 * SEQPACKET pair that the host made for this request only): the supervisor writes one
 * struct sbx_reply or struct sbx_exit to it and closes it. So no reader thread is
 * needed in the host, and no two host threads ever read one stream.
 *
 * Nothing in this file is ever written by a job: jobs hold only their call channel (see
 * call.h).
 */
#ifndef SBX_WIRE_H
#define SBX_WIRE_H

#include <stdint.h>

#include "err.h"

enum {
    SBX_MAX_MOUNTS = 96,    /* mount fds in one message (kernel: SCM_MAX_FD 253) */
    SBX_MAX_CGROUP_FDS = 8, /* one for v2, one per hierarchy for v1 */
    SBX_MAX_DENIED = 16,    /* distinct denied system calls kept per job */
    SBX_MAX_MSG = 65536, /* largest message; larger payloads travel as a sealed memfd */
};

enum sbx_msg_type {
    /* host -> broker: look up a name, answer with a detached mount */
    SBX_MSG_MOUNT = 1,
    SBX_MSG_TEMPLATE, /* host -> supervisor: start a zygote */
    SBX_MSG_POOL,  /* host -> supervisor (and on to the zygote): a plan, its mounts */
    SBX_MSG_GROW,  /* host -> supervisor: pool is empty, want `count` more waiting
                      sandboxes */
    SBX_MSG_START, /* host -> supervisor: a job runs since `start_ns`, here are its
                      deadlines */
    SBX_MSG_KILL,  /* host -> supervisor: kill a job's whole tree now */
    SBX_MSG_WAIT,  /* host -> supervisor: tell me (reply fd) when and how a job ended */
    SBX_MSG_SNAPSHOT,  /* host -> supervisor: what later waiting sandboxes of a pool
                          shall load */
    SBX_MSG_DROP_POOL, /* host -> supervisor (-> zygote): kill its waiting jobs, forget
                          it */
    SBX_MSG_DROP_TEMPLATE, /* host -> supervisor: kill the zygote and all its jobs */
    SBX_MSG_STAT, /* host -> supervisor: usage of a running job now (reply fd: sbx_exit,
                     alive) */
    SBX_MSG_STOP, /* host -> supervisor: kill everything and exit */
    SBX_MSG_FORK, /* supervisor -> zygote */
    SBX_MSG_FORKED, /* zygote -> supervisor */
    SBX_MSG_EXITED, /* zygote -> supervisor */
    SBX_MSG_READY,  /* job in set-up -> supervisor: complete (or failed), here is my
                       listener */
    SBX_MSG_REPLY,  /* any answer that is just an error record */
    SBX_MSG_HELLO,  /* supervisor -> host on the control socket, once, after start-up */
};

/* First member of every message. */
struct sbx_head {
    uint32_t type;    /* enum sbx_msg_type */
    uint32_t n_bytes; /* payload bytes that follow the fixed struct */
};

/* host -> broker. Payload: absolute path, no NUL. Fds: none. Answer on the same socket
 * (the host serialises under a lock): struct sbx_reply with one fd, a detached mount
 * (open_tree), or err. */
struct sbx_mount {
    struct sbx_head head;
    /* what the host's own look-up saw; another object: ESTALE. 0,0 = any */
    uint64_t dev, ino;
    uint64_t attr;         /* MOUNT_ATTR_* to set (nosuid and nodev are always added) */
    uint32_t is_recursive; /* AT_RECURSIVE: take submounts along */
    uint32_t map_from_uid, map_from_gid; /* owner on disk ... */
    /* ... shown as this host id; UINT32_MAX: no idmap */
    uint32_t map_to_uid, map_to_gid;
    uint32_t pad;
};

/* host -> supervisor. Start a zygote. Fds: template plan (sealed memfd), n_mounts mount
 * fds, reply. Reply: sbx_reply once the zygote runs its serve loop (or the error record
 * it died of). */
struct sbx_template {
    struct sbx_head head;
    uint64_t template_id; /* chosen by the host, unique for the supervisor's life */
    uint32_t n_mounts;
    /* 1: exec the supervisor's own binary as a C zygote, 0: the plan's argv */
    uint32_t is_command;
};

/* host -> supervisor. Make a pool. Fds: job plan (sealed memfd), n_mounts mount fds,
 * pool socket (the supervisor's end), reply.  The supervisor sends the same struct on
 * to the zygote with fds: job plan, mounts. The zygote answers with sbx_reply (id =
 * pool_id) on the zygote socket. */
struct sbx_pool {
    struct sbx_head head;
    uint64_t template_id, pool_id;
    uint32_t n_mounts;
    uint32_t n_waiting; /* how many waiting sandboxes to keep */
    /* id inside the zygote's user namespace that the jobs take (0 where only one id is
     * mapped); the pool's idmapped mounts show files as that id */
    uint32_t uid_index;
    /* 1: memory_bytes is enforced by polling the tree (no cgroup) */
    uint32_t poll_memory;
    /* limits that the supervisor enforces, UINT64_MAX = none */
    uint64_t memory_bytes;
    uint64_t cpu_time_ns;
    uint64_t cpu_quota_us; /* per 100 000 us period: cpus * 100000 */
    uint64_t processes;
    /* bit set of enum sbx_cgroup_want that MUST come from a cgroup */
    uint32_t want_cgroup;
    uint32_t wants_listener; /* jobs send a seccomp listener with READY */
};

/* also: what HELLO says is available */
enum sbx_cgroup_want {
    SBX_CG_MEMORY = 1,
    SBX_CG_CPU = 2,
    SBX_CG_PIDS = 4,
    SBX_CG_CPUACCT = 8,
    SBX_CG_IO = 16,
    SBX_CG_FREEZER = 32,
};

/* Fds: a sealed memfd, or none to forget the last one. Jobs forked from now on get a
 * copy of it. */
struct sbx_snapshot {
    struct sbx_head head;
    uint64_t pool_id, version;
};

/* The pool is empty and a call waits: fork `count` sandboxes now, beyond n_waiting. */
struct sbx_grow {
    struct sbx_head head;
    uint64_t pool_id;
    uint32_t count;
    uint32_t pad;
};

/* Times are CLOCK_MONOTONIC ns; UINT64_MAX = none. Marks the job as running (not
 * waiting): the supervisor refills the pool, polls CPU time and memory, kills at the
 * deadline (cause TIMEOUT). Sent again for a running job: another deadline. */
struct sbx_start {
    struct sbx_head head;
    uint64_t job_id, start_ns, deadline_ns;
};

struct sbx_kill {
    struct sbx_head head;
    uint64_t job_id;
    uint32_t cause;
    uint32_t cpu; /* 1 + the CPU that the host runs on, 0 = not known: where the next
                     waiting sandbox of this pool shall wake up */
};
struct sbx_wait {
    struct sbx_head head;
    uint64_t job_id;
}; /* Fds: reply */
struct sbx_drop {
    struct sbx_head head;
    uint64_t id;
}; /* template_id or pool_id */

/* supervisor -> host on a pool socket, once the sandbox is complete. Fds: call channel,
 * stdout read end, stderr read end; none if err is set (this sandbox could not be made;
 * the host decides). */
struct sbx_pub {
    struct sbx_head head;
    uint64_t pool_id, job_id;
    uint64_t version; /* of the snapshot it has loaded, 0 = none */
    struct sbx_err err;
    uint32_t pad;
};

/* supervisor -> zygote. Fds: call channel (job's end), stdout write end, stderr write
 * end, [snapshot memfd if version != 0], then n_cgroup_fds files to write "0" to. */
struct sbx_fork {
    struct sbx_head head;
    uint64_t pool_id, job_id, version;
    uint32_t n_cgroup_fds;
    uint32_t uid_index;
    uint32_t cpu; /* as in sbx_kill */
    uint32_t pad;
};
/* zygote -> supervisor, after fork() returned in the zygote. Fds: pidfd of the job
 * (none on err). */
struct sbx_forked {
    struct sbx_head head;
    uint64_t job_id;
    struct sbx_err err;
    uint32_t pad;
};
/* job -> supervisor, on the zygote socket, as the last act of its set-up (the job has
 * no copy of that socket afterwards and has read no user data yet). Fds: the seccomp
 * listener if has_listener. */
struct sbx_ready {
    struct sbx_head head;
    uint64_t job_id;
    struct sbx_err err;
    uint32_t has_listener;
};
/* zygote -> supervisor: the job was reaped. */
struct sbx_exited {
    struct sbx_head head;
    uint64_t job_id;
    int32_t wait_status; /* as of wait4(2) */
    uint32_t pad;
    uint64_t utime_us, stime_us, maxrss_kb;
    uint64_t n_faults_minor, n_faults_major;
};

struct sbx_reply {
    struct sbx_head head;
    uint64_t id;
    struct sbx_err err;
    uint32_t pad;
};

/* why a job ended; order = strength, the first that applies is kept */
enum sbx_cause {
    SBX_CAUSE_EXITED = 0, /* by itself: wait_status tells */
    SBX_CAUSE_SIGNALED,   /* by a signal that we did not send */
    SBX_CAUSE_CANCELLED,  /* SBX_MSG_KILL from the host */
    SBX_CAUSE_TIMEOUT,
    SBX_CAUSE_CPU_TIME,
    SBX_CAUSE_MEMORY,
    SBX_CAUSE_OUTPUT, /* host said so in KILL */
    SBX_CAUSE_LOST,   /* zygote died, or job unknown */
};

struct sbx_denied {
    uint32_t nr;
    uint32_t count;
    uint64_t args[4];
};

/* Answer to WAIT and STAT. */
struct sbx_exit {
    struct sbx_head head;
    uint64_t job_id;
    uint32_t cause; /* enum sbx_cause */
    int32_t wait_status;
    uint32_t is_alive; /* STAT only */
    uint32_t n_denied;
    /* of the tree where a cgroup counts, else of reaped processes */
    uint64_t utime_us, stime_us;
    uint64_t peak_memory_bytes; /* cgroup peak, else highest polled PSS, else max RSS */
    uint64_t peak_processes;    /* 0 = not known */
    uint32_t memory_source;     /* 0 = maxrss, 1 = poll (PSS), 2 = cgroup */
    uint32_t n_pids_refused;    /* cgroup pids.events max */
    uint64_t wall_ns;           /* START to exit, 0 if never started */
    struct sbx_denied denied[SBX_MAX_DENIED];
};

/* supervisor -> host, once. err set: start-up failed (stage says where), nothing else
 * will come. */
struct sbx_hello {
    struct sbx_head head;
    struct sbx_err err;
    uint32_t is_root; /* started with real root rights: id range below is mapped */
    /* host ids that jobs may get: base+1 .. base+n-1 (root only) */
    uint32_t uid_base, n_uids;
    uint32_t cgroup_version; /* 0 none, 1, 2 */
    uint32_t cgroup_have;    /* bit set of enum sbx_cgroup_want */
    uint32_t landlock_abi;
    /* in the host's pid namespace is unknown; this is in the outer one */
    uint32_t supervisor_pid;
};

#endif
