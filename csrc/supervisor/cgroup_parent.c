/* cgroup_parent.c - the broker's part of cgroup.h: find our own group, make and remove
 * the parents. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "../base/io.h"
#include "cgroup.h"

static const char prefix[] = "agentsbx-";

/* mountinfo escapes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
    char *to = s;

    for (; *s; s++, to++) {
        if (s[0] == '\\' && s[1] && s[2] && s[3]) {
            *to = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to = *s;
        }
    }
    *to = 0;
}

static int has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ',') &&
            (p[n] == 0 || p[n] == ',' || p[n] == '\n' || p[n] == ':'))
            return 1;
    return 0;
}

static uint32_t known_words(const char *list)
{
    uint32_t have = 0;

    have |= has_word(list, "memory") ? SBX_CG_MEMORY : 0;
    have |= has_word(list, "pids") ? SBX_CG_PIDS : 0;
    have |= has_word(list, "cpu") ? SBX_CG_CPU : 0;
    have |= has_word(list, "cpuacct") ? SBX_CG_CPUACCT : 0;
    return have;
}

/* Path of our group in the hierarchy, from /proc/self/cgroup (cgroups(7)). */
static int own_path(const char *controller, char *path, size_t n)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[4096];
    int r = -ENOENT;

    if (!f)
        return -errno;
    while (r && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':');
        char *p = list ? strchr(list + 1, ':') : NULL;
        if (!p)
            continue;
        *p++ = 0;
        if (controller ? !has_word(list + 1, controller) : list[1] != 0)
            continue;
        p[strcspn(p, "\n")] = 0;
        r = strlen(p) < n ? 0 : -ENAMETOOLONG;
        if (!r)
            strcpy(path, p);
    }
    (void)fclose(f);
    return r;
}

int sbx_cg_own_dir(const char *fstype, const char *controller, uint32_t *have)
{
    char line[4096], group[2048], path[4096];
    int fd = -ENOENT, r = own_path(controller, group, sizeof group);
    FILE *f;

    if (r)
        return r;
    if (!(f = fopen("/proc/self/mountinfo", "re")))
        return -errno;
    while (fd < 0 && fgets(line, sizeof line, f)) {
        char root[1024], at[1024], type[64], opts[1024];
        char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %1023s %1023s", root, at) != 2 ||
            sscanf(tail, " - %63s %*s %1023s", type, opts) != 2 ||
            strcmp(type, fstype) != 0 || (controller && !has_word(opts, controller)))
            continue;
        unescape(root);
        unescape(at);
        size_t n = strcmp(root, "/") ? strlen(root)
                                     : 0; /* a bind of a part of the hierarchy */
        const char *below = strncmp(group, root, n) ? "" : group + n;
        if ((size_t)snprintf(path, sizeof path, "%s%s", at, below) >= sizeof path)
            continue;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
        *have = known_words(opts);
    }
    (void)fclose(f);
    return fd;
}

/* Field 22 of /proc/<pid>/stat: start time in ticks since boot; 0 if the process is
 * gone. */
static uint64_t start_time(pid_t pid)
{
    char path[64], buf[1024], *p;
    uint64_t v = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (sbx_read_file(AT_FDCWD, path, buf, sizeof buf) < 0 || !(p = strrchr(buf, ')')))
        return 0;
    for (int i = 2; p && i < 22; i++)
        p = strchr(p + 1, ' ');
    if (p)
        sbx_parse_u64(p + 1, &v);
    return v;
}

/* rmdir of a tree of groups, deepest first. */
static void remove_tree(int up_fd, const char *name, int depth)
{
    int fd = openat(up_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    for (struct dirent *e; d && depth < 4 && (e = readdir(d));)
        if (e->d_type == DT_DIR && e->d_name[0] != '.')
            remove_tree(fd, e->d_name, depth + 1);
    if (d)
        closedir(d);
    else
        sbx_close(&fd);
    unlinkat(up_fd, name, AT_REMOVEDIR);
}

/* Remove what brokers left that were killed. The name tells the owner; the lock
 * decides, because a process of another pid namespace looks dead from here. */
static void remove_stale(int up_fd)
{
    int fd = fcntl(up_fd, F_DUPFD_CLOEXEC, 3);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (!d)
        return;
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        int pid;
        unsigned long long start;
        /* NOLINTNEXTLINE(cert-err34-c): a wrong number is a name that is not ours */
        if (sscanf(e->d_name, "agentsbx-%d-%llu", &pid, &start) != 2 ||
            start_time(pid) == start)
            continue;
        SBX_FD int dir = openat(up_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0 && flock(dir, LOCK_EX | LOCK_NB) == 0)
            remove_tree(up_fd, e->d_name, 0);
    }
    closedir(d);
}

int sbx_cg_add_dir(struct sbx_cg *cg, int up_fd, uint32_t have, uint32_t uid,
                   uint32_t gid)
{
    SBX_FD int up = up_fd;
    SBX_FD int fd = -1;

    if (up < 0 || cg->n_dirs >= SBX_MAX_CGROUP_FDS)
        return -EINVAL;
    remove_stale(up);
    if (mkdirat(up, cg->name, 0755))
        return -errno;
    fd = openat(up, cg->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) ||
        (uid != UINT32_MAX && fchown(fd, uid, gid))) {
        int err = errno;
        unlinkat(up, cg->name, AT_REMOVEDIR);
        return -err;
    }
    cg->dirs[cg->n_dirs++] = (struct sbx_cg_dir){steal_fd(&up), steal_fd(&fd), have};
    cg->have |= have;
    return 0;
}

void sbx_cg_make_parents(struct sbx_cg *cg, uint32_t uid, uint32_t gid)
{
    memset(cg, 0, sizeof *cg);
    (void)snprintf(cg->name, sizeof cg->name, "%s%d-%llu", prefix, (int)getpid(),
                   (unsigned long long)start_time(getpid()));
    if (sbx_cg_v2_parents(cg, uid, gid))
        sbx_cg_v1_parents(cg, uid, gid);
}

int sbx_cg_adopt(struct sbx_cg *cg, pid_t supervisor)
{
    return cg->version == 2
               ? sbx_cg_write_u64(cg->dirs[0].fd, "supervisor/cgroup.procs",
                                  (uint64_t)supervisor)
               : 0;
}

void sbx_cg_remove_parents(struct sbx_cg *cg)
{
    for (unsigned i = 0; i < cg->n_dirs; i++) {
        struct sbx_cg_dir *d = &cg->dirs[i];
        /* The last processes leave their groups a moment after their death was
         * reported. */
        for (int tries = 0; tries < 100; tries++) {
            remove_tree(d->up_fd, cg->name, 0);
            if (faccessat(d->up_fd, cg->name, F_OK, 0))
                break;
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
        /* A killed broker's, whose processes were still dying when we started. */
        remove_stale(d->up_fd);
        sbx_close(&d->fd);
        sbx_close(&d->up_fd);
    }
    cg->n_dirs = 0;
    cg->version = 0;
    cg->have = 0;
}
