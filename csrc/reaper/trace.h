/* trace.h - a command under ptrace(2): which of its calls failed, and about what
 * (`explain=True`).
 *
 * Runs in the sandbox, in pid 1, with the rights of the job and not one more: what a
 * command does to its tracer it does to itself, and what the tracer reports is advice
 * for words, never a verdict. The job's filter then allows two calls more (ptrace,
 * process_vm_readv); the command gets a second filter that denies them again, and that
 * stops at the calls of traced.def alone: everything else runs at full speed. What else
 * the job's filter denies, its listener records as ever.
 *
 * Job control does not hold in a traced run: a stopped process goes on.
 */
#ifndef SBX_TRACE_H
#define SBX_TRACE_H

#include <sys/resource.h>

/* In the forked child, before its execve: wait until pid 1 traces. 0 or -errno. */
int sbx_trace_enter(void);

/* In pid 1: serve all processes of the command until `pid` has ended, with a DENIED
 * frame for each distinct failure. Wait status, usage in *ru. */
int sbx_trace_serve(int pid, struct rusage *ru);

#endif
