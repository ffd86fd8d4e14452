/* session.h - the reaper of a session: pid 1 that starts any number of programs.
 *
 * Each program has a *keeper*, a process between pid 1 and it that takes up what the
 * program orphans (PR_SET_CHILD_SUBREAPER), answers on the program's own reply socket
 * and ends the whole tree when the program is done or the host closes that socket. If a
 * program kills its keeper, pid 1 gets the orphans and kills them.
 */
#ifndef SBX_SESSION_H
#define SBX_SESSION_H

/* Serve SPAWN and FILE frames of SBX_JOB_CHANNEL until the host closes it. */
void sbx_session_run(void) __attribute__((noreturn));

/* In a keeper: do one FILE and answer on `reply`. `fd`: the memfd, or -1. */
void sbx_session_file(char *body, unsigned n, int reply, int fd)
    __attribute__((noreturn));

/* Kill every process below the caller and reap what becomes its child. 0, or -ETIME if
 * some are still there after `ms` milliseconds. */
int sbx_session_kill_below(unsigned ms);

#endif
