/* cpu.c - where a waiting sandbox wakes up: see child.h. */
#include "child.h"

#include "../base/sys.h"

enum { MASK_WORDS = 16 }; /* 1024 CPUs: CPU_SETSIZE */

static unsigned long all_cpus[MASK_WORDS];
static long n_bytes; /* of all_cpus, 0 = not pinned */

void sbx_cpu_wait_on(uint32_t cpu)
{
    unsigned long one[MASK_WORDS] = {0};
    const unsigned bits = 8 * sizeof one[0];

    if (cpu == 0 || cpu > bits * MASK_WORDS)
        return;
    n_bytes = syscall(SYS_sched_getaffinity, 0, sizeof all_cpus, all_cpus);
    one[(cpu - 1) / bits] = 1ul << ((cpu - 1) % bits);
    /* Best effort: a CPU that this process may not use is refused. */
    if (n_bytes > 0 && syscall(SYS_sched_setaffinity, 0, sizeof one, one) < 0)
        n_bytes = 0;
}

void sbx_cpu_release(void)
{
    if (n_bytes > 0)
        (void)syscall(SYS_sched_setaffinity, 0, n_bytes, all_cpus);
    n_bytes = 0;
}
