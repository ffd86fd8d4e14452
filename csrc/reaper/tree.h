/* tree.h - the processes below one of ours, found in the sandbox's own /proc.
 *
 * Runs in a session's pid 1 and keepers. Fixed buffers.
 */
#ifndef SBX_TREE_H
#define SBX_TREE_H

/* SIGKILL every process below `root` but those for which `is_spared` holds, and what is
 * below these (NULL: none). Returns how many were killed, or -errno. Racing forks need
 * another round. */
int sbx_tree_kill(int root, int (*is_spared)(int pid));

#endif
