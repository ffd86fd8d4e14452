/* proc.h - processes and privileges of the launcher: clone, id maps, capabilities,
 * Landlock.
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

/* no_new_privs, then a Landlock domain with every network right and scope that this
 * kernel knows and no file rules: with file rules the domain could neither mount nor
 * read a job's memory. Returns the ABI (0: no Landlock), or -errno. Before the first
 * fork, so that every descendant is inside. */
int sbx_proc_landlock(void);

/* Keep only the capabilities of `keep` (bit set) in the effective, permitted and
 * bounding sets, none in the others. A child in a new user namespace has full sets of
 * its own all the same. */
int sbx_proc_keep_caps(uint64_t keep);

#endif
