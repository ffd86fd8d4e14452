/* reaper.h - pid 1 of a command's sandbox, and the command zygote's program.
 *
 * Static C, no Python. The job (forked by sbx_zygote_serve, all walls up) waits for one
 * EXEC frame on its channel, starts the command as its only child, reaps whatever is
 * orphaned to it, answers EXITED and ends: the kernel then kills what is left in the
 * pid namespace.
 */
#ifndef SBX_REAPER_H
#define SBX_REAPER_H

#include <stdint.h>

/* Program `agentsbx-launcher zygote`: serve on fd 3 (SBX_JOB_CHANNEL); jobs become
 * reapers. */
int sbx_command_zygote_main(void);

/* Waits on `cpu` (see child.h). Never returns. */
void sbx_reaper_run(uint32_t cpu) __attribute__((noreturn));

#endif
