/* glob.h - names by pattern, for files that are kept (`keep=`).
 *
 * One matcher for the job, which sends what matches, and for the host, which takes
 * nothing else.
 */
#ifndef SBX_GLOB_H
#define SBX_GLOB_H

/* Whether a relative name matches. `*` is any run of bytes but `/`, `?` one character
 * (of UTF-8) but `/`; the part `**` is any number of folders, and at the end all that
 * lies below. A pattern without `/` is compared with the last part of the name. Both
 * end with NUL. Takes at most their lengths' product in steps, times the parts. */
int sbx_glob_match(const char *pattern, const char *name);

#endif
