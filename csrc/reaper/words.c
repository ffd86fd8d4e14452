/* words.c - see words.h. */
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char **sbx_words(char **s, const char *end, uint32_t n)
{
    char **words = n < 65536 ? calloc(n + 1, sizeof *words) : NULL;

    for (uint32_t i = 0; words && i < n; i++) {
        size_t len = strnlen(*s, (size_t)(end - *s));
        if (*s + len >= end) {
            free(words);
            return NULL;
        }
        words[i] = *s;
        *s += len + 1;
    }
    return words;
}

int sbx_exec(char *const *argv, char *const *envp)
{
    static char path[4096];
    const char *file = argv[0], *dirs = NULL;
    int last = ENOENT;

    if (strchr(file, '/')) {
        execve(file, argv, envp);
        return errno;
    }
    for (char *const *env = envp; *env; env++)
        if (!strncmp(*env, "PATH=", 5))
            dirs = *env + 5;
    while (dirs && *dirs) {
        size_t n = strcspn(dirs, ":");
        if (n && n + strlen(file) + 2 <= sizeof path) {
            memcpy(path, dirs, n);
            path[n] = '/';
            strcpy(path + n + 1, file);
            execve(path, argv, envp);
            if (errno != ENOENT && errno != ENOTDIR)
                last = errno;
        }
        dirs += n + (dirs[n] == ':');
    }
    return last;
}
