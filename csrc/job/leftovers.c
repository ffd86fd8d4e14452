/* leftovers.c - see leftovers.h. Frames: base/call.h. */
#include "leftovers.h"

#include "../base/glob.h"
#include "../base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* 6.3 */
#endif

enum { MAX_DEPTH = 24, MAX_SEEN = 20000, DIR_BYTES = 2048 };

static const struct {
    const char *path; /* where it is opened: /dev/shm is a link */
    const char *name; /* as the job names it */
} places[] = {
    [SBX_PLACE_HOME] = {"/sandbox/home", "/sandbox/home"},
    [SBX_PLACE_TMPDIR] = {"/sandbox/tmp", "/sandbox/tmp"},
    [SBX_PLACE_TMP] = {"/tmp", "/tmp"},
    [SBX_PLACE_SHM] = {"/sandbox/shm", "/dev/shm"},
};

long sbx_leftovers_count(void)
{
    struct statfs fs;

    return statfs("/sandbox", &fs) < 0 ? -errno : (long)(fs.f_files - fs.f_ffree);
}

static int is_named(const struct sbx_leftovers *w)
{
    const char *p = w->keep.patterns, *end = p + w->keep.n_patterns;
    char whole[sizeof w->name + 16];
    size_t n = strlen(places[w->place].name);

    memcpy(whole, places[w->place].name, n);
    whole[n] = '/';
    strcpy(whole + n + 1, w->name);
    for (; p < end; p += strlen(p) + 1)
        if (sbx_glob_match(p, *p == '/' ? whole : w->name))
            return 1;
    return 0;
}

static void send_list(struct sbx_leftovers *w, unsigned flags)
{
    w->list.files.flags |= flags;
    w->list.head =
        (struct sbx_frame){SBX_FRAME_FILES,
                           (uint32_t)(sizeof w->list.files + w->n_list), 0, 0};
    if (w->err == 0)
        w->err = sbx_send(w->channel, &w->list.head, sizeof w->list.head,
                          &w->list.files, w->list.head.n_inline, NULL, 0, 0);
    w->list.files.n_records = 0;
    w->n_list = 0;
}

static size_t write_record(const struct sbx_leftovers *w, char *to, uint64_t size,
                           enum sbx_left_kind kind, enum sbx_left_why why)
{
    struct sbx_left_file f = {.size = size,
                              .n_name = (uint16_t)strlen(w->name),
                              .place = (uint8_t)w->place,
                              .kind = (uint8_t)kind,
                              .why = (uint8_t)why};

    memcpy(to, &f, sizeof f);
    memcpy(to + sizeof f, w->name, f.n_name);
    return sizeof f + f.n_name;
}

static void list(struct sbx_leftovers *w, uint64_t size, enum sbx_left_kind kind,
                 enum sbx_left_why why)
{
    struct sbx_files *f = &w->list.files;

    if (w->n_listed == SBX_MAX_LISTED) {
        f->n_more++;
        if (__builtin_add_overflow(f->more_bytes, size, &f->more_bytes))
            f->more_bytes = UINT64_MAX;
        return;
    }
    if (w->n_list + sizeof(struct sbx_left_file) + SBX_MAX_NAME >
        sizeof w->list.records)
        send_list(w, 0);
    w->n_list += write_record(w, w->list.records + w->n_list, size, kind, why);
    f->n_records++;
    w->n_listed++;
}

/* -- what is kept ----------------------------------------------------------------- */

/* As much as there is, at most n bytes: a file that grows meanwhile is cut. Length or
 * -errno. */
static ssize_t read_all(int fd, char *to, size_t n)
{
    size_t at = 0;

    while (at < n) {
        ssize_t r = read(fd, to + at, n - at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        at += (size_t)r;
    }
    return (ssize_t)at;
}

static int is_zero(const char *s, size_t n)
{
    return n && !*s && !memcmp(s, s + 1, n - 1);
}

/* A sealed memfd of the first `size` bytes, holes kept. Its fd, and in *size what was
 * there; or -errno. */
static int copy(int from, char *buf, size_t n_buf, uint64_t *size)
{
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    uint64_t at = 0;
    SBX_FD int fd = memfd_create("kept", flags | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("kept", flags);
    if (fd < 0)
        return -errno;
    while (at < *size) {
        uint64_t part = *size - at < n_buf ? *size - at : n_buf;
        ssize_t n = read_all(from, buf, (size_t)part);
        if (n < 0)
            return (int)n;
        for (ssize_t done = 0; done < n && !is_zero(buf, (size_t)n);) {
            ssize_t r =
                pwrite(fd, buf + done, (size_t)(n - done), (off_t)at + (off_t)done);
            if (r < 0 && errno != EINTR)
                return -errno;
            done += r > 0 ? r : 0;
        }
        at += (uint64_t)n;
        if ((uint64_t)n < part)
            break;
    }
    *size = at;
    if (ftruncate(fd, (off_t)at) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return -errno;
    return steal_fd(&fd);
}

/* The frame of one kept file. 0 or -errno. */
static int send_kept(struct sbx_leftovers *w, int from, uint64_t size)
{
    char *to = w->kept.bytes;
    size_t n = write_record(w, to, size, SBX_LEFT_FILE, SBX_WHY_NOT_NAMED);
    SBX_FD int memfd = -1;

    if (size <= SBX_FILES_INLINE) {
        ssize_t got = read_all(from, to + n, (size_t)size);
        if (got < 0)
            return (int)got;
        size = (uint64_t)got;
        n += (size_t)got;
    } else {
        memfd = copy(from, to, sizeof w->kept.bytes, &size);
        if (memfd < 0)
            return memfd;
        if (size == 0) /* emptied meanwhile: nothing that could be mapped */
            sbx_close(&memfd);
    }
    /* The size may be another by now; a copy went through the same buffer. */
    (void)write_record(w, to, size, SBX_LEFT_FILE, SBX_WHY_NOT_NAMED);
    w->kept.files = (struct sbx_files){.n_records = 1, .flags = SBX_FILES_KEPT};
    w->kept.head =
        (struct sbx_frame){SBX_FRAME_FILES, (uint32_t)(sizeof w->kept.files + n), 0,
                           memfd >= 0 ? size : 0};
    int r = sbx_send(w->channel, &w->kept.head, sizeof w->kept.head, &w->kept.files,
                     w->kept.head.n_inline, &memfd, memfd >= 0, 0);
    if (r == 0)
        w->keep.max_bytes -= size;
    return r;
}

static enum sbx_left_why keep(struct sbx_leftovers *w, int dir, const char *name,
                              const struct stat *seen)
{
    struct stat st;

    if (!S_ISREG(seen->st_mode))
        return SBX_WHY_KIND;
    if (w->n_kept == SBX_MAX_KEPT)
        return SBX_WHY_COUNT;
    if ((uint64_t)seen->st_size > w->keep.max_bytes)
        return SBX_WHY_BYTES;
    /* Another may stand there by now: a pipe would keep us waiting. */
    SBX_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_dev != w->dev)
        return SBX_WHY_UNREADABLE;
    if (send_kept(w, fd, (uint64_t)seen->st_size) < 0)
        return SBX_WHY_UNREADABLE;
    w->n_kept++;
    return SBX_WHY_NOT_NAMED;
}

/* -- the walk --------------------------------------------------------------------- */

static void on_file(struct sbx_leftovers *w, int dir, const char *name)
{
    struct stat st;
    unsigned n_kept = w->n_kept;
    enum sbx_left_why why = SBX_WHY_NOT_NAMED;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return; /* gone meanwhile */
    if (st.st_dev != w->dev)
        return; /* a grant that is mounted there */
    if (is_named(w))
        why = keep(w, dir, name, &st);
    if (w->n_kept == n_kept)
        list(w, (uint64_t)st.st_size,
             S_ISREG(st.st_mode)   ? SBX_LEFT_FILE
             : S_ISLNK(st.st_mode) ? SBX_LEFT_LINK
                                   : SBX_LEFT_OTHER,
             why);
}

static void walk(struct sbx_leftovers *w, int dir, size_t n_name, unsigned depth);

static void enter(struct sbx_leftovers *w, int dir, const char *name, size_t n_name,
                  unsigned depth)
{
    struct stat st;
    SBX_FD int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        if (errno != ENOENT)
            w->list.files.flags |= SBX_FILES_PARTIAL;
    } else if (st.st_dev == w->dev) {
        walk(w, fd, n_name, depth);
    }
}

/* Files of a folder first, then its folders: what is nearest to the top is listed. The
 * name of the folder stands in w->name, n_name bytes with its slash. */
static void walk(struct sbx_leftovers *w, int dir, size_t n_name, unsigned depth)
{
    _Alignas(struct dirent64) char buf[DIR_BYTES];

    if (depth == MAX_DEPTH) {
        w->list.files.flags |= SBX_FILES_PARTIAL;
        return;
    }
    for (int want_folders = 0; want_folders < 2; want_folders++) {
        long n = lseek(dir, 0, SEEK_SET);
        while (n >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0) {
            for (long at = 0; at < n;) {
                const struct dirent64 *d = (const void *)(buf + at);
                size_t len = strlen(d->d_name);
                at += d->d_reclen;
                if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
                    (d->d_type == DT_DIR) != want_folders)
                    continue;
                if (w->n_seen == MAX_SEEN || n_name + len + 2 > sizeof w->name) {
                    w->list.files.flags |= SBX_FILES_PARTIAL;
                    continue;
                }
                if (w->err < 0) /* nobody listens */
                    return;
                w->n_seen++;
                memcpy(w->name + n_name, d->d_name, len + 1);
                if (!want_folders) {
                    on_file(w, dir, d->d_name);
                    continue;
                }
                memcpy(w->name + n_name + len, "/", 2);
                enter(w, dir, d->d_name, n_name + len + 1, depth + 1);
            }
            if (w->n_seen == MAX_SEEN) {
                w->list.files.flags |= SBX_FILES_PARTIAL;
                return;
            }
        }
        if (n < 0)
            w->list.files.flags |= SBX_FILES_PARTIAL;
    }
}

int sbx_leftovers_send(struct sbx_leftovers *w, int channel,
                       const struct sbx_keep *what)
{
    struct stat st;

    memset(&w->list.files, 0, sizeof w->list.files);
    w->channel = channel;
    w->keep = *what;
    w->n_seen = w->n_kept = w->n_listed = 0;
    w->n_list = 0;
    w->err = 0;
    if (stat("/sandbox", &st) < 0)
        return -errno;
    w->dev = st.st_dev;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        w->place = (enum sbx_place)i;
        w->name[0] = 0;
        SBX_FD int fd = open(places[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
            walk(w, fd, 0, 0);
        else if (i != SBX_PLACE_TMP) /* closed to the job where a grant lies below it */
            w->list.files.flags |= SBX_FILES_PARTIAL;
    }
    send_list(w, SBX_FILES_LAST);
    return w->err;
}
