/* io.c - see io.h. */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_FDS = 128 };

/* aligned control buffer (cmsg(3)) */
union ctl {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)];
};

int sbx_fd_lift(int fd)
{
    if (fd > 2 || fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int e = errno;
    close(fd);
    errno = e;
    return high;
}

int sbx_pair(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        fds[i] = sbx_fd_lift(fds[i]);
        if (fds[i] < 0) {
            int e = errno;
            sbx_close(&fds[!i]);
            return -e;
        }
    }
    return 0;
}

int sbx_send(int sock, const void *head, size_t n_head, const void *body, size_t n_body,
             const int *fds, unsigned n_fds, int flags)
{
    struct iovec iov[2] = {{(void *)head, n_head}, {(void *)body, n_body}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_body ? 2 : 1};
    union ctl ctl;

    if (n_fds > MAX_FDS)
        return -EINVAL;
    if (n_fds) {
        msg.msg_control = &ctl;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        memset(&ctl, 0, msg.msg_controllen);
        ctl.head.cmsg_level = SOL_SOCKET;
        ctl.head.cmsg_type = SCM_RIGHTS;
        ctl.head.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(&ctl.head), fds, sizeof(int) * n_fds);
    }
    for (;;) {
        ssize_t r = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
        if (r >= 0)
            return 0; /* SOCK_SEQPACKET: all or nothing */
        if (errno != EINTR)
            return -errno;
    }
}

ssize_t sbx_recv(int sock, void *buf, size_t n, int *fds, unsigned max_fds,
                 unsigned *n_fds, int flags)
{
    struct iovec iov = {buf, n};
    union ctl ctl;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    unsigned got = 0;
    int is_cut = 0, is_short = 0;
    ssize_t r;

    if (n_fds)
        *n_fds = 0;
    if (max_fds > MAX_FDS)
        return -EINVAL;
    if (max_fds) { /* the kernel itself drops what does not fit: no descriptor can be
                      smuggled in */
        msg.msg_control = &ctl;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * max_fds);
    }
    do
        r = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned k = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < k; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (got < max_fds) {
                /* not 0-2, where a host without standard streams would print to */
                fd = sbx_fd_lift(fd);
                if (fd < 0)
                    is_short = 1;
                else
                    fds[got++] = fd;
            } else { /* CMSG_SPACE padding can let one more through */
                close(fd);
            }
        }
    }
    /* A message without bytes reads like the end: what rides on it must not stay open.
     */
    is_cut |= msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    /* The kernel says the same of what we have no numbers for; then there was room. */
    is_short |= (msg.msg_flags & MSG_CTRUNC) && got < max_fds;
    if (r == 0 || is_cut || is_short)
        while (got)
            sbx_close(&fds[--got]);
    if (is_cut || is_short)
        return is_short ? -EMFILE : -EMSGSIZE;
    if (n_fds)
        *n_fds = got;
    return r;
}

ssize_t sbx_read_all(int fd, char *buf, size_t n)
{
    size_t len = 0;

    while (len < n) {
        ssize_t r = read(fd, buf + len, n - len);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        len += (size_t)r;
    }
    return (ssize_t)len;
}

ssize_t sbx_read_file(int dirfd, const char *path, char *buf, size_t n)
{
    SBX_FD int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t len = sbx_read_all(fd, buf, n - 1);
    if (len >= 0)
        buf[len] = 0;
    return len;
}

int sbx_write_file(int dirfd, const char *path, const char *text)
{
    SBX_FD int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
    ssize_t r;

    if (fd < 0)
        return -errno;
    do
        r = write(fd, text, strlen(text));
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

char *sbx_u64_str(uint64_t v, char *buf)
{
    char tmp[21];
    int i = 20, j = 0;

    tmp[20] = 0;
    do
        tmp[--i] = (char)('0' + v % 10);
    while (v /= 10);
    while ((buf[j++] = tmp[i++]))
        ;
    return buf;
}

int sbx_parse_u64(const char *s, uint64_t *v)
{
    uint64_t x = 0;

    if (*s < '0' || *s > '9')
        return -EINVAL;
    for (; *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(x, 10, &x) ||
            __builtin_add_overflow(x, (uint64_t)(*s - '0'), &x))
            return -EINVAL;
    *v = x;
    return 0;
}

uint64_t sbx_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
