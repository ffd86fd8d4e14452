/* tree.c - see tree.h and session.h. Source: proc_pid_stat(5). */
#include "tree.h"

#include "../base/io.h"
#include "session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MAX_PROCESSES = 8192, DIR_BYTES = 8192 };

static struct {
    int pid, parent;
    int is_below; /* -1: spared, with all below it */
} found[MAX_PROCESSES];

/* The parent of a process, 0 if it is gone. */
static int parent_of(int proc, const char *name)
{
    char path[32], text[512];
    uint64_t parent;

    if (strlen(name) > 20)
        return 0;
    strcpy(path, name);
    strcat(path, "/stat");
    if (sbx_read_file(proc, path, text, sizeof text) <= 0)
        return 0;
    char *s = strrchr(text, ')'); /* "pid (any name) S parent ..." */
    if (!s || strlen(s) < 5)
        return 0;
    s += 4;
    s[strcspn(s, " ")] = 0;
    return sbx_parse_u64(s, &parent) < 0 ? 0 : (int)parent;
}

static int list(int proc)
{
    static char buf[DIR_BYTES] __attribute__((aligned(8)));
    unsigned n = 0;
    uint64_t pid;
    long got;

    while ((got = syscall(SYS_getdents64, proc, buf, sizeof buf)) > 0)
        for (long at = 0; at < got;) {
            struct dirent64 *d = (void *)(buf + at);
            at += d->d_reclen;
            if (n == MAX_PROCESSES || sbx_parse_u64(d->d_name, &pid) < 0)
                continue;
            int parent = parent_of(proc, d->d_name);
            if (parent) {
                found[n].pid = (int)pid;
                found[n].parent = parent;
                found[n++].is_below = 0;
            }
        }
    return got < 0 ? -errno : (int)n;
}

/* Mark what is below `root`: pids wrap around, so children may stand before parents. */
static void mark(unsigned n, int root, int (*is_spared)(int pid))
{
    for (int changed = 1; changed;) {
        changed = 0;
        for (unsigned i = 0; i < n; i++) {
            int state = found[i].parent == root;
            for (unsigned j = 0; !state && j < n; j++)
                if (found[j].pid == found[i].parent)
                    state = found[j].is_below;
            if (state == 1 && is_spared && is_spared(found[i].pid))
                state = -1;
            if (state != found[i].is_below) {
                found[i].is_below = state;
                changed = 1;
            }
        }
    }
}

int sbx_tree_kill(int root, int (*is_spared)(int pid))
{
    SBX_FD int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n_killed = 0;

    if (proc < 0)
        return -errno;
    int n = list(proc);
    if (n < 0)
        return n;
    mark((unsigned)n, root, is_spared);
    for (int i = 0; i < n; i++)
        if (found[i].is_below == 1 && kill(found[i].pid, SIGKILL) == 0)
            n_killed++;
    return n_killed;
}

int sbx_session_kill_below(unsigned ms)
{
    const uint64_t until = sbx_now_ns() + ms * 1000000ull;

    for (;;) {
        int got;
        while ((got = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (got < 0 && errno == ECHILD)
            return 0;
        (void)sbx_tree_kill(getpid(), NULL);
        if (sbx_now_ns() > until)
            return -ETIME;
        (void)poll(NULL, 0, 1);
    }
}
