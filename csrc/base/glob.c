/* glob.c - see glob.h. */
#include "glob.h"

#include <string.h>

static const char *next_character(const char *s, const char *end)
{
    do
        s++;
    while (s < end && ((unsigned char)*s & 0xc0) == 0x80);
    return s;
}

/* One part against one part. Only the last star is ever moved: what an earlier one
 * could gain, a later one has. */
static int match_part(const char *p, const char *p_end, const char *s,
                      const char *s_end)
{
    const char *after_star = NULL, *again = NULL;

    while (s < s_end) {
        if (p < p_end && *p == '*') {
            after_star = ++p;
            again = s;
        } else if (p < p_end && *p == '?') {
            p++;
            s = next_character(s, s_end);
        } else if (p < p_end && *p == *s) {
            p++;
            s++;
        } else if (after_star) {
            p = after_star;
            s = again = next_character(again, s_end);
        } else {
            return 0;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

/* The part behind one of `n` bytes, NULL at the end. */
static const char *next_part(const char *s, size_t n)
{
    return s[n] ? s + n + 1 : NULL;
}

int sbx_glob_match(const char *pattern, const char *name)
{
    const char *p = pattern, *s = name, *after_deep = NULL, *again = NULL;
    const char *last = strrchr(name, '/');

    if (!strchr(pattern, '/') && last)
        s = last + 1;
    while (s) {
        size_t n_p = p ? strcspn(p, "/") : 0, n_s = strcspn(s, "/");
        if (p && n_p == 2 && !memcmp(p, "**", 2)) {
            p = after_deep = next_part(p, n_p);
            again = s;
            if (!p)
                return 1;
        } else if (p && match_part(p, p + n_p, s, s + n_s)) {
            p = next_part(p, n_p);
            s = next_part(s, n_s);
        } else if (after_deep) {
            s = again = next_part(again, strcspn(again, "/"));
            p = after_deep;
        } else {
            return 0;
        }
    }
    return !p;
}
