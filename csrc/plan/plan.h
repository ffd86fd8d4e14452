/* plan.h - THE contract between the Python compiler of policies and the C code that
 * enforces them.
 *
 * A plan is immutable bytes: position-independent, hashable, diffable.
 * agentsbx/_compile.py makes it (a pure function of policy and host), the SHA-256 of a
 * job plan is the `policy_id` of every audit record. It crosses processes in a sealed
 * memfd and is checked by plan/check.c on arrival; after that nobody decides anything
 * any more: the child runs the operations in order and stops at the first failure (law
 * 4: decide early, enforce late).
 *
 *   struct sbx_plan | struct sbx_op[n_ops] | struct sock_filter[n_bpf] | strings
 *
 * Offsets count from the start of the plan. A string is named by its offset from
 * `strings_off`; offset 0 is always the empty string; NUL ends each. Numbers are
 * native-endian: both ends are one build.
 *
 * There are two kinds of plan:
 *
 *   SBX_PLAN_TEMPLATE  run once by a zygote-to-be, in new user, pid, mount, net, ipc,
 *                      uts and cgroup namespaces, before it executes its program.
 *                      Builds the base tree.
 *   SBX_PLAN_JOB       run by every job after fork(), in namespaces of its own. Adds
 *                      what one policy grants and puts up the walls.
 *
 * The order of operations inside a plan is the order of enum sbx_op_kind's groups
 * (check.c refuses others): tree, identity, limits, walls, start. Used in: host
 * (builder writes it), zygote, job. Nothing here allocates; all readers take a `const
 * struct sbx_plan *`.
 */
#ifndef SBX_PLAN_H
#define SBX_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "../base/err.h"

#define SBX_PLAN_MAGIC 0x31504253u /* "SBP1" */

enum {
    SBX_PLAN_TEMPLATE = 1,
    SBX_PLAN_JOB = 2,
    SBX_MAX_OPS = 1024,
    SBX_MAX_BPF = 4096, /* BPF_MAXINSNS */
    SBX_MAX_PLAN = 1 << 20,
};

/* What each operation means. `path`, `text` are strings; `arg`, `a`, `b` numbers. All
 * paths are absolute inside the sandbox. Parents of a target are never followed through
 * symbolic links (openat2 RESOLVE_NO_SYMLINKS): a job that wrote a link into a writable
 * grant cannot redirect the next job's mounts. */
enum sbx_op_kind {
    SBX_OP_END = 0,
    /* -- tree --------------------------------------------------------------------- */
    SBX_OP_TMPFS,   /* new tmpfs on path; a = bytes, b = inodes; mode 0755; nosuid,nodev
                       always */
    SBX_OP_MKDIR,   /* mkdir -p path; a = mode of the last component (parents 0755);
                       SBX_F_OWN gives it to the job's own id */
    SBX_OP_WRITE,   /* create regular file path with content text; a = mode */
    SBX_OP_SYMLINK, /* symbolic link path -> text */
    SBX_OP_BIND,    /* mount number arg on path; SBX_F_FILE: the target is a file.
                       The target (dir or empty file) is made where it is missing, but
                       never with SBX_F_NOCREATE (it lies in a grant: nothing of ours
                       may appear on the host; with SBX_F_OPTIONAL a missing one is
                       skipped). Template: number = index into the mount fds of the
                       message; job: <SBX_POOL_DIR>/<pool_id>/<number>, moved */
    SBX_OP_NODE, /* template: the host's device node of the same path (null, zero, full,
                    ...) */
    SBX_OP_SELF, /* bind text (a path inside) on path; SBX_F_RECURSIVE: with the mounts
                    below it */
    SBX_OP_MOVE, /* move the mount at text to path */
    SBX_OP_PROC, /* fresh proc on path; SBX_F_RDONLY makes all of it read-only */
    SBX_OP_MASK, /* hide path if it exists: /dev/null over a file, an empty read-only
                    directory over a directory; missing is fine */
    SBX_OP_RDONLY, /* the mount at path (not below it) becomes read-only */
    SBX_OP_PIVOT,  /* template: pivot_root onto the staging root, drop the old one */
    SBX_OP_DETACH, /* job: lazily unmount path (hides the pool store and the like) */
    /* -- identity ----------------------------------------------------------------- */
    SBX_OP_HOSTNAME, /* sethostname(text), own uts namespace */
    SBX_OP_IDS,      /* job: own user namespace; a, b = uid and gid that the job sees */
    SBX_OP_SYSCTL,   /* write text to path (/proc/sys/user/max_*), in the job's user
                        namespace */
    /* -- limits ------------------------------------------------------------------- */
    SBX_OP_RLIMIT, /* setrlimit(arg, a soft, b hard) */
    SBX_OP_CPUS, /* job: run on the CPUs of text only ("0,1,5"), all of them or fail */
    /* -- walls -------------------------------------------------------------------- */
    SBX_OP_CAPS, /* empty bounding, ambient, inheritable, effective and permitted sets;
                    securebits locked; no_new_privs */
    SBX_OP_LANDLOCK, /* rule: access a below path; handled sets are in the header.
                        SBX_F_OPTIONAL: a missing path is skipped. A file path takes the
                        file rights of a only */
    SBX_OP_SECCOMP,  /* load the plan's BPF; SBX_F_LISTENER: with a user-notification
                        listener */
    SBX_OP_CANARY, /* open(path, O_RDONLY) must fail with errno arg: proves the walls by
                      behaviour */
    /* -- start -------------------------------------------------------------------- */
    SBX_OP_CHDIR, /* chdir(path) */
    SBX_OP_ARG,   /* template: next argv word = text (first: path of the program) */
    SBX_OP_ENV,   /* template: next environment entry = text */
    SBX_N_OPS
};

enum sbx_op_flags {
    SBX_F_FILE = 1,
    SBX_F_RDONLY = 2,
    SBX_F_OPTIONAL = 4,
    SBX_F_LISTENER = 8,
    SBX_F_OWN = 16,
    SBX_F_RECURSIVE = 32,
    SBX_F_NOCREATE = 64
};

/* Where a zygote keeps the mounts of its pools; jobs detach it before user data. */
#define SBX_POOL_DIR "/.pools"

/* A system call number that no kernel has. Every job filter answers it with
 * SBX_CANARY_ERRNO: the child calls it after loading and stops unless that very errno
 * comes back (stage SELFTEST). */
#define SBX_CANARY_NR 4095
#define SBX_CANARY_ERRNO 33 /* EDOM */

struct sbx_plan {
    uint32_t magic, kind;
    uint32_t n_bytes;                /* of the whole plan */
    uint32_t n_ops;                  /* ops start right behind this struct */
    uint32_t bpf_off, n_bpf;         /* struct sock_filter[n_bpf]; 0, 0 = none */
    uint32_t strings_off, n_strings; /* bytes of the string area */
    uint32_t n_mounts;               /* mounts that SBX_OP_BIND may name */
    uint32_t flags;                  /* SBX_PLAN_* below */
    /* handled sets; all 0 = no Landlock */
    uint64_t landlock_fs, landlock_net, landlock_scope;
};

enum sbx_plan_flags {
    SBX_PLAN_NEW_NET = 1, /* template: own, empty network namespace */
    /* job: own mount namespace (always set in tier namespaces) */
    SBX_PLAN_MOUNT_NS = 2,
    SBX_PLAN_IPC_NS = 4,
    SBX_PLAN_PID_NS = 8,
};

struct sbx_op {
    uint16_t kind, flags;
    uint32_t arg;
    uint32_t path, text; /* string offsets */
    uint64_t a, b;
};

static inline const struct sbx_op *sbx_plan_ops(const struct sbx_plan *p)
{
    return (const struct sbx_op *)(p + 1);
}

static inline const char *sbx_plan_str(const struct sbx_plan *p, uint32_t off)
{
    return (const char *)p + p->strings_off + off;
}

/* Check a plan of `n` bytes as hostile input: bounds, order, counts, terminated
 * strings, absolute paths without "..", known kinds for this plan kind. 0 or -errno
 * with stage PLAN and the op index in *e. Async-signal-safe; runs in supervisor, zygote
 * and job alike. */
int sbx_plan_check(const void *bytes, size_t n, uint32_t kind, struct sbx_err *e);

#endif
