/* proc.h - processes and privileges of the launcher: clone, id maps, capabilities,
 * the Landlock ABI.
 *
 * Used in: broker, supervisor, and a zygote-to-be before it executes. Nothing here
 * allocates. All functions return a value >= 0 or -errno; descriptors are CLOEXEC.
 */
#ifndef SBX_PROC_H
#define SBX_PROC_H

#include <stdint.h>
#include <sys/types.h>

/* fork() with CLONE_* flags and a pidfd, without clone3 (container filters answer
 * ENOSYS to it). 0 in the child. The child's libc still believes the parent's thread
 * id: it may only use calls that do not look at it. *pidfd is set in the parent only.
 */
pid_t sbx_proc_clone(uint64_t flags, int *pidfd);

/* Is the process behind the pidfd dead (also a zombie)? */
int sbx_proc_is_dead(int pidfd);

/* Write text to /proc/<pid>/<name>: uid_map, gid_map, setgroups of a child. */
int sbx_proc_write(pid_t pid, const char *name, const char *text);
/* Map ids [inside, inside + n) of the child's new user namespace to ours from
 * `outside`. */
int sbx_proc_map_ids(pid_t pid, uint32_t inside_uid, uint32_t outside_uid,
                     uint32_t inside_gid, uint32_t outside_gid, uint32_t n,
                     int has_setgroups);

/* The Landlock ABI of this kernel, 0: none; or -errno. The supervisor takes no domain
 * of its own: any layer above a job's own denies it LANDLOCK_ACCESS_FS_REFER, even one
 * without file rules, and so every rename between two directories (decision 16). */
int sbx_proc_landlock_abi(void);

/* Keep only the capabilities of `keep` (bit set) in the effective, permitted and
 * bounding sets, none in the others. A child in a new user namespace has full sets of
 * its own all the same. */
int sbx_proc_keep_caps(uint64_t keep);

#endif
