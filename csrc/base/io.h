/* io.h - file descriptors and messages: the few helpers that every process of agentsbx
 * shares.
 *
 * All of it is async-signal-safe: no allocation, no stdio, no locks. EINTR is retried.
 */
#ifndef SBX_IO_H
#define SBX_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

static inline void sbx_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* `SBX_FD int fd = -1;`: closed at the end of the scope unless steal_fd() took it. */
#define SBX_FD __attribute__((cleanup(sbx_close)))

static inline int steal_fd(int *fd)
{
    int got = *fd;
    *fd = -1;
    return got;
}

/* The same descriptor above 2, CLOEXEC; the old number is closed if it was 0, 1 or 2.
 * -1 with errno of fcntl(2). */
int sbx_fd_lift(int fd);

/* A SOCK_SEQPACKET pair, CLOEXEC and above 2. 0 or -errno. */
int sbx_pair(int fds[2]);

/* Invariants of our own code: NDEBUG does not switch these off. */
#define SBX_CHECK(x) ((x) ? (void)0 : __builtin_trap())

/* Send one message of `n` bytes in up to two parts with `n_fds` descriptors. 0 or
 * -errno. */
int sbx_send(int sock, const void *head, size_t n_head, const void *body, size_t n_body,
             const int *fds, unsigned n_fds, int flags);

/* Receive one message. Returns its length (0 = peer closed), or -errno (-EMSGSIZE:
 * longer than n, or more fds than max_fds; -EMFILE: fewer numbers are left than fds
 * came; what came along is closed). Received fds are CLOEXEC and above 2; *n_fds counts
 * them. */
ssize_t sbx_recv(int sock, void *buf, size_t n, int *fds, unsigned max_fds,
                 unsigned *n_fds, int flags);

/* As much as there is until the end, at most n bytes. Length or -errno. */
ssize_t sbx_read_all(int fd, char *buf, size_t n);
/* Whole file into buf (NUL-terminated, at most n - 1 bytes), relative to dirfd. Length
 * or -errno. */
ssize_t sbx_read_file(int dirfd, const char *path, char *buf, size_t n);
/* One write(2) of text to an existing file, relative to dirfd. 0 or -errno. */
int sbx_write_file(int dirfd, const char *path, const char *text);

/* Decimal of v into buf (>= 21 bytes), NUL-terminated; returns buf. Parse: 0 and *v, or
 * -EINVAL. */
char *sbx_u64_str(uint64_t v, char *buf);
int sbx_parse_u64(const char *s, uint64_t *v);

uint64_t sbx_now_ns(void); /* CLOCK_MONOTONIC */

#endif
