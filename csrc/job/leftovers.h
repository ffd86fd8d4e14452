/* leftovers.h - what a job leaves in its private places ($HOME, $TMPDIR, /tmp,
 * /dev/shm): told to the host, and what `keep=` names sent along, before all of it is
 * gone.
 *
 * Runs in the job, after its work, with the rights of the job; other processes of it
 * may still run and change what is being read. No file is followed, none but regular
 * ones are opened, depth and count have bounds.
 */
#ifndef SBX_LEFTOVERS_H
#define SBX_LEFTOVERS_H

#include "../base/call.h"

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

/* Which files are sent, and how many bytes of them at most. */
struct sbx_keep {
    const char
        *patterns;     /* glob.h; absolute ones are of whole names. Each with its NUL */
    size_t n_patterns; /* bytes */
    uint64_t max_bytes;
};

/* What one walk needs; the caller's, so that it may lie where no page is touched before
 * it is used. Not to be looked into. */
struct sbx_leftovers {
    int channel, err;
    enum sbx_place place;
    struct sbx_keep keep;
    dev_t dev;
    unsigned n_seen, n_kept, n_listed;
    struct {
        struct sbx_frame head;
        struct sbx_files files;
        char records[SBX_FRAME_INLINE - sizeof(struct sbx_files)];
    } list;
    size_t n_list; /* bytes of records */
    struct {
        struct sbx_frame head;
        struct sbx_files files;
        char bytes[SBX_FRAME_INLINE - sizeof(struct sbx_files)];
    } kept;
    char name[SBX_MAX_NAME];
};

/* Inodes in use in the job's private storage: unchanged as long as nothing was left.
 * -errno. One statfs(2). */
long sbx_leftovers_count(void);

/* Walk, and send FILES frames, the last one with SBX_FILES_LAST. 0, or -errno where the
 * channel is broken. */
int sbx_leftovers_send(struct sbx_leftovers *w, int channel,
                       const struct sbx_keep *keep);

#endif
