/* poll.c - limits that the kernel does not enforce for us: CPU time of a tree, memory
 * where no cgroup is to be had, and the death of a whole job when one of its processes
 * was OOM-killed (v1).
 *
 * Without a cgroup the tree is what /proc shows: pid 1 of the job and its descendants
 * (orphans come back to pid 1, so none is missed for long). These numbers are sampled:
 * a process that lives between two looks counts only through its parent's waited-for
 * time. memory_source in sbx_exit says which it was.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#include "../base/io.h"
#include "../base/sys.h"
#include "supervisor.h"

enum { MAX_TREE = 512, CHEAP_TREE = 4 };
static const uint64_t POLL_NS = 20000000, SLOW_POLL_NS = 100000000,
                      NS_PER_TICK = 10000000; /* USER_HZ 100 */

struct tree {
    unsigned n, n_threads;
    int is_cut;
    pid_t pids[MAX_TREE];
};

static char *at(char *buf, pid_t pid, const char *file)
{
    char num[24];

    strcat(strcpy(buf, "/proc/"), sbx_u64_str((uint64_t)pid, num));
    return strcat(buf, file);
}

/* The job's pid in our namespace, from its pidfd. 0: gone. */
static pid_t pid_of(int pidfd)
{
    char path[64], num[24], buf[512], *p;
    uint64_t v = 0;

    strcat(strcpy(path, "/proc/self/fdinfo/"), sbx_u64_str((uint64_t)pidfd, num));
    if (sbx_read_file(AT_FDCWD, path, buf, sizeof buf) < 0 ||
        !(p = strstr(buf, "\nPid:\t")))
        return 0;
    return sbx_parse_u64(p + 6, &v) ? 0 : (pid_t)v;
}

static void add_children_of_thread(struct tree *t, const char *path)
{
    char buf[4096], *p = buf;
    uint64_t v;

    ssize_t n = sbx_read_file(AT_FDCWD, path, buf, sizeof buf);
    if (n <= 0)
        return;
    t->is_cut |= n == (ssize_t)sizeof buf - 1;
    while (!sbx_parse_u64(p, &v)) {
        if (t->n == MAX_TREE) {
            t->is_cut = 1;
            return;
        }
        t->pids[t->n++] = (pid_t)v;
        p += strspn(p, "0123456789");
        p += *p == ' ';
    }
}

/* Breadth first; t->pids[0] is the job. */
static void walk(struct tree *t, pid_t root)
{
    t->n = 1;
    t->n_threads = 0;
    t->is_cut = 0;
    t->pids[0] = root;
    for (unsigned i = 0; i < t->n; i++) {
        char path[96], num[24];
        DIR *d = opendir(at(path, t->pids[i], "/task"));
        for (struct dirent *e; d && (e = readdir(d));) {
            uint64_t tid;
            if (sbx_parse_u64(e->d_name, &tid))
                continue;
            t->n_threads++;
            strcat(at(path, t->pids[i], "/task/"), sbx_u64_str(tid, num));
            add_children_of_thread(t, strcat(path, "/children"));
        }
        if (d)
            closedir(d);
    }
}

/* utime + stime + cutime + cstime, fields 14-17 of proc_pid_stat(5). */
static uint64_t cpu_ns_of(pid_t pid)
{
    char path[64], buf[1024], *p;
    uint64_t sum = 0, v;

    if (sbx_read_file(AT_FDCWD, at(path, pid, "/stat"), buf, sizeof buf) < 0 ||
        !(p = strrchr(buf, ')')))
        return 0;
    for (int field = 2; p && field < 17; field++) {
        p = strchr(p + 1, ' ');
        if (p && field >= 13 && !sbx_parse_u64(p + 1, &v))
            sum += v;
    }
    return sum * NS_PER_TICK;
}

/* Number behind `key` in a file of lines `Key:  n kB`, in bytes. */
static uint64_t kb_of(const char *text, const char *key)
{
    const char *p = strstr(text, key);
    uint64_t kb = 0;

    if (p) {
        p += strlen(key);
        sbx_parse_u64(p + strspn(p, " \t"), &kb);
    }
    return kb * 1024;
}

/* Resident and swapped pages into *rss. Returns the page tables, which no other number
 * has: a job could fill gigabytes of them with mappings of the one zero page. */
static uint64_t sizes_of(pid_t pid, uint64_t *rss)
{
    char path[64], buf[4096];

    *rss = 0;
    if (sbx_read_file(AT_FDCWD, at(path, pid, "/status"), buf, sizeof buf) < 0)
        return 0;
    *rss = kb_of(buf, "\nVmRSS:") + kb_of(buf, "\nVmSwap:");
    return kb_of(buf, "\nVmPTE:");
}

static uint64_t pss_of(pid_t pid)
{
    char path[64], buf[2048];

    if (sbx_read_file(AT_FDCWD, at(path, pid, "/smaps_rollup"), buf, sizeof buf) < 0)
        return 0;
    return kb_of(buf, "\nPss:") + kb_of(buf, "\nSwapPss:");
}

static void raise_to(uint64_t *peak, uint64_t v)
{
    if (v > *peak)
        *peak = v;
}

/* RSS counts pages shared with the zygote and among the tree in full: for a big tree it
 * only says whether the dearer look (it walks page tables) is worth it. */
static uint64_t memory_of(const struct tree *t, uint64_t limit)
{
    uint64_t rss = 0, pss = 0, tables = 0, one;

    for (unsigned i = 0; i < t->n; i++) {
        tables += sizes_of(t->pids[i], &one);
        rss += one;
    }
    if (t->n > CHEAP_TREE && rss + tables < limit - limit / 8)
        return rss + tables;
    for (unsigned i = 0; i < t->n; i++)
        pss += pss_of(t->pids[i]);
    return (pss ? pss : rss) + tables;
}

static void poll_tree(struct sbx_jb *j)
{
    static struct tree t;
    const struct sbx_pool *d = &j->pool->def;
    uint64_t cpu = 0, bytes;

    if (!j->pid)
        j->pid = pid_of(j->pidfd);
    if (!j->pid)
        return;
    walk(&t, j->pid);
    raise_to(&j->peak_processes, t.n_threads);
    for (unsigned i = 0; i < t.n; i++)
        cpu += cpu_ns_of(t.pids[i]);
    raise_to(&j->polled_cpu_ns, cpu);
    if (d->cpu_time_ns != SBX_NEVER && j->polled_cpu_ns > d->cpu_time_ns)
        sbx_job_kill(j, SBX_CAUSE_CPU_TIME);
    bytes = memory_of(&t, d->memory_bytes);
    raise_to(&j->peak_bytes, bytes);
    if (d->poll_memory &&
        (bytes > d->memory_bytes || (t.is_cut && d->memory_bytes != SBX_NEVER)))
        /* a tree too big to count is not under its limit */
        sbx_job_kill(j, SBX_CAUSE_MEMORY);
}

static void check_oom(struct sbx_jb *j, const struct sbx_cg_usage *u)
{
    if (u->n_oom && j->cause < SBX_CAUSE_MEMORY)
        sbx_job_kill(j, SBX_CAUSE_MEMORY);
}

void sbx_poll_job(struct sbx_sup *s, struct sbx_jb *j, uint64_t now_ns)
{
    const struct sbx_pool *d = &j->pool->def;
    const struct sbx_cg *cg = &s->l->cg;
    uint32_t have = j->slot ? cg->have : 0;
    int needs_tree = (d->poll_memory && !(have & SBX_CG_MEMORY)) ||
                     (d->cpu_time_ns != SBX_NEVER && !(have & SBX_CG_CPUACCT));
    struct sbx_cg_usage u;

    /* Young or limited jobs are looked at often, the others only for their peaks. */
    j->next_poll_ns = now_ns + (needs_tree || j->slot ? POLL_NS : SLOW_POLL_NS);
    if (j->slot && sbx_slot_usage(&s->l->cg, j->slot, &u) == 0) {
        check_oom(j, &u);
        if (d->cpu_time_ns != SBX_NEVER && (have & SBX_CG_CPUACCT) &&
            u.cpu_ns > d->cpu_time_ns)
            sbx_job_kill(j, SBX_CAUSE_CPU_TIME);
    }
    if (needs_tree || !(have & SBX_CG_MEMORY)) {
        poll_tree(j);
        /* A job can make its own /proc files slow to read; others' deadlines must not
         * pay for it. */
        uint64_t spent = sbx_now_ns() - now_ns;
        if (j->next_poll_ns < now_ns + 10 * spent)
            j->next_poll_ns = now_ns + 10 * spent;
    }
}

void sbx_poll_fill(struct sbx_sup *s, struct sbx_jb *j, struct sbx_exit *m)
{
    struct sbx_cg_usage u;
    uint32_t have = j->slot ? s->l->cg.have : 0;

    if (j->peak_bytes > m->peak_memory_bytes) {
        m->peak_memory_bytes = j->peak_bytes;
        m->memory_source = 1;
    }
    m->peak_processes = j->peak_processes;
    if (j->polled_cpu_ns / 1000 >
        m->utime_us + m->stime_us) /* killed: nobody waited for the children */
        m->utime_us = j->polled_cpu_ns / 1000 - m->stime_us;
    if (!j->slot || sbx_slot_usage(&s->l->cg, j->slot, &u))
        return;
    if (have & SBX_CG_MEMORY) {
        check_oom(j, &u);
        m->peak_memory_bytes = u.peak_bytes;
        m->memory_source = 2;
    }
    if (have & SBX_CG_CPUACCT) {
        m->utime_us = u.user_us;
        m->stime_us = u.system_us;
    }
    if (u.peak_processes)
        m->peak_processes = u.peak_processes;
    m->n_pids_refused = (uint32_t)u.n_pids_refused;
}
