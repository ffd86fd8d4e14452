/* files.c - one file operation of a session: see session.h. Frames: base/call.h.
 *
 * It has the rights of the sandbox's programs and sees their root: a link cannot lead
 * it where they could not go themselves. A FIFO or device that stands where a file is
 * expected must not hold it up: O_NONBLOCK, and an alarm.
 */
#include "../base/call.h"
#include "../base/io.h"
#include "../base/sys.h"
#include "session.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h> /* renameat2 */
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 200, DIR_BYTES = 8192, OUT_BYTES = 16384 };

struct call {
    struct sbx_file head;
    const char *path, *second;
    int fd; /* the memfd, -1: none */
    struct sbx_file_reply reply;
};

static void fill(struct sbx_file_reply *r, const struct stat *st)
{
    r->mode = st->st_mode;
    r->size = (uint64_t)st->st_size;
    r->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* A regular file, or the errno of what it is instead. */
static int open_regular(struct call *c, int flags)
{
    struct stat st;
    int fd =
        open(c->path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, c->head.mode & 0777);

    if (fd < 0)
        return -errno;
    int r = fstat(fd, &st) < 0    ? -errno
            : S_ISDIR(st.st_mode) ? -EISDIR
            : S_ISREG(st.st_mode) ? 0
                                  : -EINVAL;
    if (r < 0) {
        close(fd);
        return r;
    }
    fill(&c->reply, &st);
    return fd;
}

static int write_all(int fd, const char *s, size_t n)
{
    while (n) {
        ssize_t got = write(fd, s, n);
        if (got < 0 && errno != EINTR)
            return -errno;
        s += got > 0 ? got : 0;
        n -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* The next bytes of one file to the other: how many, 0 at the end, or -errno. Files of
 * the kernel (/proc, /sys) cannot be sent. */
static ssize_t copy_some(int to, int from, size_t n, int *is_sent)
{
    static char buf[OUT_BYTES];
    ssize_t got = *is_sent ? sendfile(to, from, NULL, n) : -1;

    if (*is_sent && !(got < 0 && (errno == EINVAL || errno == ENOSYS)))
        return got < 0 ? -errno : got;
    *is_sent = 0;
    got = read(from, buf, n < sizeof buf ? n : sizeof buf);
    if (got <= 0)
        return got < 0 ? -errno : 0;
    int r = write_all(to, buf, (size_t)got);
    return r < 0 ? r : got;
}

/* Up to `n` bytes of one file to the other. How many, or -errno. */
static int64_t copy(int to, int from, uint64_t n)
{
    uint64_t done = 0;
    int is_sent = 1;

    while (done < n) {
        size_t part = n - done < 1u << 30 ? (size_t)(n - done) : 1u << 30;
        ssize_t got = copy_some(to, from, part, &is_sent);
        if (got == 0)
            break;
        if (got < 0 && got != -EINTR)
            return got;
        done += got > 0 ? (uint64_t)got : 0;
    }
    return (int64_t)done;
}

static int do_stat(struct call *c)
{
    struct stat st;
    int flags = c->head.flags & SBX_FILE_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW;

    if (fstatat(AT_FDCWD, c->path, &st, flags) < 0)
        return -errno;
    fill(&c->reply, &st);
    return 0;
}

static int do_read(struct call *c)
{
    SBX_FD int from = open_regular(c, O_RDONLY);
    char more;

    if (from < 0)
        return from;
    int64_t n = copy(c->fd, from, c->head.max_bytes);
    if (n < 0)
        return (int)n;
    c->reply.n_bytes = (uint64_t)n;
    c->reply.is_cut = (uint64_t)n == c->head.max_bytes && read(from, &more, 1) == 1;
    return 0;
}

static int do_write(struct call *c)
{
    int flags = O_WRONLY | O_CREAT;

    flags |= c->head.flags & SBX_FILE_NEW      ? O_EXCL
             : c->head.flags & SBX_FILE_APPEND ? 0 /* sendfile refuses O_APPEND */
                                               : O_TRUNC;
    SBX_FD int to = open_regular(c, flags);
    struct stat st;
    if (to < 0)
        return to;
    if (c->head.flags & SBX_FILE_APPEND && lseek(to, 0, SEEK_END) < 0)
        return -errno;
    if (lseek(c->fd, 0, SEEK_SET) < 0)
        return -errno;
    int64_t n = copy(to, c->fd, UINT64_MAX);
    if (n < 0)
        return (int)n;
    c->reply.n_bytes = (uint64_t)n;
    if (fstat(to, &st) == 0)
        fill(&c->reply, &st);
    return 0;
}

static int do_list(struct call *c)
{
    static char in[DIR_BYTES] __attribute__((aligned(8))), out[OUT_BYTES];
    size_t n_out = 0;
    long got = 0;
    int r = 0;
    SBX_FD int dir = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return -errno;
    while (!c->reply.is_cut && (got = syscall(SYS_getdents64, dir, in, sizeof in)) > 0)
        for (long at = 0; at < got;) {
            struct dirent64 *d = (void *)(in + at);
            size_t n_name = strlen(d->d_name);
            struct stat st;
            at += d->d_reclen;
            if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
                continue;
            if (fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                continue; /* gone meanwhile */
            struct sbx_file_reply r1 = {0};
            fill(&r1, &st);
            struct sbx_entry e = {r1.size, r1.mtime_ns, r1.mode, (uint32_t)n_name};
            if (c->reply.n_bytes + sizeof e + n_name > c->head.max_bytes) {
                c->reply.is_cut = 1;
                break;
            }
            if (n_out + sizeof e + n_name > sizeof out) {
                if ((r = write_all(c->fd, out, n_out)) < 0)
                    return r;
                n_out = 0;
            }
            memcpy(out + n_out, &e, sizeof e);
            memcpy(out + n_out + sizeof e, d->d_name, n_name);
            n_out += sizeof e + n_name;
            c->reply.n_bytes += sizeof e + n_name;
            c->reply.n_entries++;
        }
    return got < 0 ? -errno : write_all(c->fd, out, n_out);
}

/* All of a directory, by descriptors and without following a link. */
static int remove_below(int parent, const char *name, unsigned depth)
{
    char buf[DIR_BYTES] __attribute__((aligned(8)));
    long got = 0;
    SBX_FD int dir =
        openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return -errno;
    if (depth == MAX_DEPTH)
        return -ELOOP;
    for (int removed = 1; removed;) { /* names move while they are read: once more */
        removed = 0;
        if (lseek(dir, 0, SEEK_SET) < 0)
            return -errno;
        while ((got = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0)
            for (long at = 0; at < got;) {
                struct dirent64 *d = (void *)(buf + at);
                at += d->d_reclen;
                if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
                    continue;
                if (unlinkat(dir, d->d_name, 0) < 0) {
                    if (errno != EISDIR && errno != EPERM)
                        return -errno;
                    int r = remove_below(dir, d->d_name, depth + 1);
                    if (r < 0)
                        return r;
                    if (unlinkat(dir, d->d_name, AT_REMOVEDIR) < 0)
                        return -errno;
                }
                removed = 1;
            }
        if (got < 0)
            return -errno;
    }
    return 0;
}

static int do_remove(struct call *c)
{
    if (unlinkat(AT_FDCWD, c->path, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (c->head.flags & SBX_FILE_RECURSIVE) {
        int r = remove_below(AT_FDCWD, c->path, 0);
        if (r < 0)
            return r;
    }
    return unlinkat(AT_FDCWD, c->path, AT_REMOVEDIR) < 0 ? -errno : 0;
}

static int do_rename(struct call *c)
{
    unsigned flags = c->head.flags & SBX_FILE_NEW ? RENAME_NOREPLACE : 0;

    return renameat2(AT_FDCWD, c->path, AT_FDCWD, c->second, flags) < 0 ? -errno : 0;
}

static int do_mkdir(struct call *c)
{
    char path[4096];
    struct stat st;
    size_t n = strlen(c->path);

    if (!(c->head.flags & SBX_FILE_RECURSIVE))
        return mkdir(c->path, c->head.mode & 0777) < 0 ? -errno : 0;
    if (n >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, c->path, n + 1);
    for (char *s = path + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            (void)mkdir(path, 0777); /* what is wrong shows in the last one */
            *s = '/';
        }
    if (mkdir(path, c->head.mode & 0777) == 0)
        return 0;
    int r = -errno;
    return r == -EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : r;
}

static int (*const operations[])(struct call *) = {
    [SBX_FILE_STAT] = do_stat,     [SBX_FILE_READ] = do_read,
    [SBX_FILE_WRITE] = do_write,   [SBX_FILE_LIST] = do_list,
    [SBX_FILE_REMOVE] = do_remove, [SBX_FILE_RENAME] = do_rename,
    [SBX_FILE_MKDIR] = do_mkdir,
};

/* The three strings behind the head; NULL if they are not there. */
static const char *next(const char **s, const char *end)
{
    const char *word = *s;
    size_t n = strnlen(word, (size_t)(end - word));

    if (word + n >= end)
        return NULL;
    *s = word + n + 1;
    return word;
}

static int perform(struct call *c, const char *body, unsigned n)
{
    const char *s = body + sizeof c->head, *end = body + n;

    if (n < sizeof c->head)
        return -EPROTO;
    memcpy(&c->head, body, sizeof c->head);
    c->path = next(&s, end);
    c->second = c->path ? next(&s, end) : NULL;
    const char *cwd = c->second ? next(&s, end) : NULL;
    if (!cwd || c->head.op == 0 || c->head.op >= sizeof operations / sizeof *operations)
        return -EPROTO;
    if (c->fd < 0 && (c->head.op == SBX_FILE_READ || c->head.op == SBX_FILE_WRITE ||
                      c->head.op == SBX_FILE_LIST))
        return -EBADF;
    (void)signal(SIGALRM, SIG_DFL);
    (void)alarm(c->head.timeout_s);
    if (*cwd && chdir(cwd) < 0)
        return -errno;
    umask(022);
    return operations[c->head.op](c);
}

void sbx_session_file(char *body, unsigned n, int reply, int fd)
{
    struct call c = {.fd = fd};
    struct {
        struct sbx_frame head;
        struct sbx_file_reply reply;
    } m = {.head = {SBX_FRAME_FILE_REPLY, sizeof(struct sbx_file_reply), 0, 0}};
    int r = perform(&c, body, n);

    m.reply = c.reply;
    m.reply.err = -r;
    (void)sbx_send(reply, &m.head, sizeof m.head, &m.reply, sizeof m.reply, NULL, 0, 0);
    _exit(0);
}
