/* Messages of a zygote that was taken over, into the real supervisor: no finding, no
 * descriptor that stays, and nothing of another template's jobs changes. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../../csrc/base/io.h"
#include "../../csrc/base/sys.h"
#include "../../csrc/supervisor/supervisor.h"

static struct sbx_sup sup;
static struct sbx_launch launch;
static int zygotes[2], hosts[2], dead_pidfd;

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 400; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void drain(int sock)
{
    char buf[4096];
    int fds[16];
    unsigned n;

    while (sbx_recv(sock, buf, sizeof buf, fds, 16, &n, MSG_DONTWAIT) > 0)
        while (n)
            close(fds[--n]);
}

/* Two templates with a pool each, two jobs in each pool. */
static void make(void)
{
    int pair[2];

    memset(&sup.templates, 0, sizeof sup.templates);
    memset(&sup.pools, 0, sizeof sup.pools);
    for (unsigned i = 0; i < sup.max_job; i++)
        memset(&sup.jobs[i], 0, sizeof sup.jobs[i]);
    sup.l = &launch;
    sup.max_job = sup.n_exits = 0;
    sup.last_serial = 0;
    sup.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < 2; i++) {
        struct sbx_tmpl *t = &sup.templates[i];
        struct sbx_plc *p = &sup.pools[i];
        SBX_CHECK(sbx_pair(pair) == 0);
        zygotes[i] = pair[1];
        *t = (struct sbx_tmpl){.state = TEMPLATE_SERVING,
                               .id = i + 1,
                               .serial = ++sup.last_serial,
                               .pidfd = fcntl(dead_pidfd, F_DUPFD_CLOEXEC, 3),
                               .sock = pair[0],
                               .reply_fd = -1,
                               .deadline_ns = SBX_NEVER};
        SBX_CHECK(sbx_pair(pair) == 0);
        hosts[i] = pair[1];
        *p = (struct sbx_plc){.state = i ? POOL_OPEN : POOL_OPENING,
                              .def = {.pool_id = i + 1, .n_waiting = 2},
                              .serial = ++sup.last_serial,
                              .tmpl = t,
                              .sock = pair[0],
                              .reply_fd = -1,
                              .snapshot_fd = -1};
        for (int n = 0; n < 2; n++) {
            SBX_CHECK(sbx_job_fork(&sup, p) == 0);
            t->forking_job = 0;
        }
    }
}

static void unmake(void)
{
    for (unsigned i = 0; i < sup.max_job; i++)
        if (sup.jobs[i].state != JOB_FREE)
            sbx_job_lost(&sup, &sup.jobs[i]);
    for (unsigned i = 0; i < 2; i++) {
        sbx_loop_close(&sup, &sup.templates[i].sock);
        sbx_close(&sup.templates[i].pidfd);
        if (sup.pools[i].state != POOL_FREE)
            sbx_pool_lost(&sup, &sup.pools[i]);
        drain(zygotes[i]);
        drain(hosts[i]);
        sbx_close(&zygotes[i]);
        sbx_close(&hosts[i]);
    }
    sbx_close(&sup.epoll_fd);
}

static int some_fd(unsigned how)
{
    switch (how % 4) {
    case 1: return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 2: return eventfd(1, EFD_CLOEXEC);
    case 3: return fcntl(dead_pidfd, F_DUPFD_CLOEXEC, 3);
    default: return -1;
    }
}

/* A message of four bytes of the input and what follows them; how much was used. */
static size_t say(const uint8_t *in, size_t n, const uint64_t *jobs)
{
    static const uint32_t types[] = {SBX_MSG_FORKED, SBX_MSG_READY, SBX_MSG_EXITED,
                                     SBX_MSG_REPLY};
    static const size_t sizes[] = {sizeof(struct sbx_forked), sizeof(struct sbx_ready),
                                   sizeof(struct sbx_exited), sizeof(struct sbx_reply)};
    union {
        struct sbx_head head;
        struct sbx_forked forked; /* the id stands at one place in all of them */
        char bytes[256];
    } m;
    unsigned kind = in[0] % 5, which = in[1] % 6;
    size_t n_m = kind < 4 ? sizes[kind] : in[2], rest = n - 4;
    int fd = some_fd(in[3]);

    memset(&m, 0, sizeof m);
    memcpy(m.bytes, in + 4, rest < n_m ? rest : n_m);
    if (kind < 4) {
        m.head.type = types[kind];
        if (which < 4)
            m.forked.job_id = jobs[which];
        if (in[2] & 1) /* no error: the way on */
            memset(&m.forked.err, 0, sizeof m.forked.err);
    }
    (void)sbx_send(zygotes[0], &m, n_m, NULL, 0, &fd, fd >= 0, MSG_DONTWAIT);
    sbx_close(&fd);
    return 4 + (rest < n_m ? rest : n_m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sbx_jb others[2];
    uint64_t jobs[4];
    int before;

    if (!dead_pidfd) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        dead_pidfd = sbx_pidfd_open(pid);
        SBX_CHECK(dead_pidfd > 0);
        (void)signal(SIGPIPE, SIG_IGN);
    }
    before = count_fds();
    make();
    for (unsigned i = 0; i < 4; i++)
        jobs[i] = sup.jobs[i].id;
    memcpy(others, &sup.jobs[2], sizeof others);
    for (size_t at = 0; at + 4 <= n;) {
        at += say(data + at, n - at, jobs);
        sbx_template_serve(&sup, sup.templates[0].serial);
        if (data[at - 1] & 1)
            (void)sbx_job_tick(&sup, sbx_now_ns() + (uint64_t)data[at - 1] * 200000000);
        drain(zygotes[0]);
        for (unsigned i = 0; i < 2; i++) {
            SBX_CHECK(sup.jobs[2 + i].id == others[i].id);
            /* Its own clock may end its set-up; no word of the other zygote does more.
             */
            SBX_CHECK(sup.jobs[2 + i].state == JOB_FORKING);
            SBX_CHECK(sup.jobs[2 + i].pidfd == -1 && sup.jobs[2 + i].listener_fd == -1);
            SBX_CHECK(sup.jobs[2 + i].pool == others[i].pool);
        }
    }
    unmake();
    SBX_CHECK(count_fds() == before);
    return 0;
}
