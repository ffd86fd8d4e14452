/* driver.c - mutates a corpus and feeds a target, where no libFuzzer is at hand.
 *
 *   target SECONDS SEED FOLDER
 *
 * Deterministic for a seed but for the time. Writes the input to ./crash before each
 * run, so that it is there when a sanitizer ends the program. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_SEEDS = 512, INPUT_BYTES = 4096 };

static struct {
    uint8_t bytes[INPUT_BYTES];
    size_t n;
} seeds[MAX_SEEDS];
static unsigned n_seeds;
static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static void load(const char *folder)
{
    DIR *d = opendir(folder);

    for (struct dirent *e; d && n_seeds < MAX_SEEDS && (e = readdir(d));) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, seeds[n_seeds].bytes, INPUT_BYTES);
        if (fd >= 0)
            close(fd);
        if (n >= 0)
            seeds[n_seeds++].n = (size_t)n;
    }
    if (d)
        closedir(d);
    n_seeds += !n_seeds;
}

static size_t mutate(uint8_t *in, size_t n)
{
    static const uint32_t odd[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 4096, 255};

    for (uint32_t left = 1 + draw(6); left; left--) {
        size_t at = n ? draw((uint32_t)n) : 0;
        switch (draw(6)) {
        case 0:
            if (n)
                in[at] = (uint8_t)draw(256);
            break;
        case 1:
            if (n)
                in[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 2: n = at; break;
        case 3:
            if (n + 4 <= INPUT_BYTES)
                memcpy(in + (at > n ? n : at), &odd[draw(7)], n - at >= 4 ? 4 : 0);
            break;
        case 4: { /* a piece of another seed */
            unsigned other = draw(n_seeds);
            size_t k = draw(64);
            if (k <= seeds[other].n && at + k <= INPUT_BYTES) {
                memcpy(in + at, seeds[other].bytes, k);
                n = at + k > n ? at + k : n;
            }
            break;
        }
        default:
            if (n < INPUT_BYTES) {
                memmove(in + at + 1, in + at, n - at);
                in[at] = (uint8_t)draw(256);
                n++;
            }
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    time_t end = time(NULL) + strtol(argv[1], NULL, 10);
    state = strtoull(argv[2], NULL, 10) | 1;
    load(argv[3]);
    int fd = open("crash", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, INPUT_BYTES + 8))
        return 2;
    uint8_t *kept =
        mmap(NULL, INPUT_BYTES + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (kept == MAP_FAILED)
        return 2;
    unsigned long long runs = 0;
    for (unsigned i = 0; i < n_seeds; i++)
        (void)LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].n);
    do {
        unsigned from = draw(n_seeds);
        uint64_t n = seeds[from].n;
        memcpy(kept + 8, seeds[from].bytes, n);
        n = mutate(kept + 8, n);
        memcpy(kept, &n, sizeof n);
        uint8_t *copy = malloc(n ? n : 1); /* exact: one byte too far is seen */
        memcpy(copy, kept + 8, n);
        (void)LLVMFuzzerTestOneInput(copy, n);
        free(copy);
        if (!(draw(16)) && n_seeds < MAX_SEEDS) { /* walk on from here, sometimes */
            memcpy(seeds[n_seeds].bytes, kept + 8, n);
            seeds[n_seeds++].n = n;
        }
        runs++;
    } while (time(NULL) < end);
    (void)fprintf(stderr, "%llu runs\n", runs);
    close(fd);
    return 0;
}
