/* call.h - frames on the one channel between a host and one job.
 *
 * The channel is a SOCK_SEQPACKET pair of its own for each job: no job can steal
 * another's request or forge its reply. One frame = one message: struct sbx_frame, then
 * at most SBX_FRAME_INLINE bytes. A body that does not fit travels in one memfd instead
 * (SCM_RIGHTS, exactly one fd), as do big buffers: the memfd holds the body, then each
 * buffer at a multiple of SBX_BUFFER_ALIGN.
 *
 * Directions are not symmetric. Host frames are trusted by the job. Job frames are
 * hostile: the host takes at most one fd, checks sizes before it looks at a byte, maps
 * a memfd only when it is sealed against WRITE, SHRINK and GROW, and never unpickles.
 */
#ifndef SBX_CALL_H
#define SBX_CALL_H

#include <stdint.h>

enum {
    SBX_FRAME_INLINE = 32 * 1024,
    SBX_BUFFER_ALIGN = 4096,
    SBX_FRAME_MAX_BUFFERS = 4096,
    SBX_MAX_KEPT = 1000,   /* files of one job that are kept */
    SBX_MAX_LISTED = 1000, /* files of one job that are listed, not counted only */
    SBX_MAX_NAME = 4096,   /* bytes of a file's name, its place included */
};

enum sbx_frame_kind {
    /* host -> job */
    SBX_FRAME_CALL = 1, /* body: msgpack header and pickle (agentsbx/_job.py) */
    SBX_FRAME_MODULE,   /* answer to IMPORT */
    SBX_FRAME_EXEC,     /* for the reaper: struct sbx_exec, then strings; fds 0, 1, 2
                           optional */
    SBX_FRAME_RESUME,   /* to a generator that gave an item: agentsbx/_generator.py */
    SBX_FRAME_SESSION,  /* for the reaper: it goes on, with any number of these: */
    SBX_FRAME_SPAWN, /* struct sbx_spawn, then strings; fds: a reply socket, 0, 1 .. */
    SBX_FRAME_FILE,  /* struct sbx_file, then strings; fds: a reply socket, a memfd */
    SBX_FRAME_CELL = 8, /* to a session's interpreter, which takes CALL too, any number
                           of both (agentsbx/_kernel.py); body: agentsbx/_header.py */
    SBX_FRAME_HOST_ANSWER = 9, /* to HOST_CALL: agentsbx/_bridge.py */
    /* job -> host */
    SBX_FRAME_RESULT = 16, /* body: codec bytes */
    SBX_FRAME_ERROR,       /* body: codec bytes of an exception */
    SBX_FRAME_IMPORT,      /* body: dotted module name, ASCII */
    SBX_FRAME_FAILED, /* body: struct sbx_err; the sandbox could not be completed */
    SBX_FRAME_SIGNAL, /* body: uint32_t signal that pid 1 caught and dies of */
    SBX_FRAME_EXITED, /* from the reaper: int32_t wait status of the command, struct
                         rusage-like sbx_usage */
    SBX_FRAME_PART,   /* next bytes of what would lie in the memfd of a RESULT or ERROR,
                         where it cannot be sent (ETOOMANYREFS); that frame then holds
                         u64 n_body */
    SBX_FRAME_TOO_BIG, /* body: "result" or "buffers", the limit that the answer would
                          break */
    SBX_FRAME_DENIED,  /* from the reaper, traced run: struct sbx_denial, then the names
                          that the failed call was given, NUL-terminated */
    SBX_FRAME_NOTE,    /* body: msgpack of one log record, warning or list of measured
                          lines (agentsbx/_notes.py); any number before the answer */
    SBX_FRAME_FILES,   /* before the last frame, where something was left in private
                               places: struct sbx_files, then its records */
    SBX_FRAME_YIELD = 27, /* body: codec bytes of one item of a generator */
    /* on the reply socket of a SPAWN: then EXITED, or FAILED instead of both */
    SBX_FRAME_STARTED,    /* body: int32_t pid in the sandbox */
    SBX_FRAME_FILE_REPLY, /* on that of a FILE: struct sbx_file_reply */
    /* from a session's interpreter */
    SBX_FRAME_DISPLAY = 30,   /* as a RESULT, but msgpack of one display
                                 (agentsbx/_displays.py); any number before the answer */
    SBX_FRAME_ENDED,          /* body: int32_t exit code; the cell left by SystemExit */
    SBX_FRAME_HOST_CALL = 32, /* body: agentsbx/_bridge_job.py HEAD, then codec bytes of
                                 the arguments of a host function */
};

struct sbx_frame {
    uint32_t kind;
    uint32_t n_inline; /* bytes behind this struct in the message */
    uint64_t n_body;   /* bytes of the body if it lies in the memfd, else 0 */
    uint64_t n_memfd;  /* bytes of the memfd, 0 = no fd */
};

/* EXEC: argv words then environment entries, NUL-terminated, `n_argv` + `n_env` of
 * them. argv[0] is looked up in PATH of that environment when it has no slash. */
struct sbx_exec {
    uint32_t n_argv, n_env;
    /* bit i: an fd rides along that replaces descriptor i (0, 1, 2), in order */
    uint32_t fd_mask;
    uint32_t is_traced; /* report the calls that fail (reaper/trace.h) */
    uint32_t n_keep;    /* bytes of patterns behind the words, each with its NUL */
    uint32_t pad;
    uint64_t keep_bytes; /* how much of what matches is sent */
};

/* SPAWN: argv words, environment entries, then the working directory (empty: as it is),
 * NUL-terminated. The reply socket is of this program alone: so no answer has to be
 * sorted out by anybody, and its closing by the host ends the program's whole tree. The
 * host writes struct sbx_ask on it. */
struct sbx_spawn {
    uint32_t n_argv, n_env;
    uint32_t n_fds; /* descriptors 0 .. n_fds - 1 of the program */
    uint32_t flags; /* enum sbx_spawn_flags */
};

enum { SBX_SPAWN_MAX_FDS = 8 };

enum sbx_spawn_flags {
    SBX_SPAWN_TTY = 1,  /* descriptor 0 becomes its controlling terminal */
    SBX_SPAWN_KEEP = 2, /* what it leaves running goes on after its end */
};

struct sbx_ask {
    uint32_t op; /* enum sbx_ask_op */
    uint32_t value;
};

enum sbx_ask_op {
    SBX_ASK_SIGNAL = 1, /* send signal `value` to the program's process group */
    SBX_ASK_KILL,       /* end the whole tree */
};

/* FILE: two paths, then the directory that relative ones start from, NUL-terminated.
 * Done by a process of the sandbox with the rights of its programs, no more. */
struct sbx_file {
    uint32_t op;    /* enum sbx_file_op */
    uint32_t flags; /* enum sbx_file_flags */
    uint32_t mode;  /* permission bits of what is made */
    uint32_t timeout_s;
    uint64_t max_bytes; /* READ: no more than these; LIST: of records */
};

enum sbx_file_op {
    SBX_FILE_STAT = 1,
    SBX_FILE_READ,  /* a regular file into the memfd */
    SBX_FILE_WRITE, /* all of the memfd into a regular file, cut to that */
    SBX_FILE_LIST,  /* struct sbx_entry records into the memfd */
    SBX_FILE_REMOVE,
    SBX_FILE_RENAME, /* the first path to the second */
    SBX_FILE_MKDIR,
};

enum sbx_file_flags {
    SBX_FILE_RECURSIVE = 1, /* REMOVE: all below it; MKDIR: parents too, may exist */
    SBX_FILE_APPEND = 2,
    SBX_FILE_NEW = 4,    /* WRITE: it must not exist; RENAME: the second must not */
    SBX_FILE_FOLLOW = 8, /* STAT: what a link leads to */
};

struct sbx_file_reply {
    int32_t err;   /* positive errno, 0 = done */
    uint32_t mode; /* st_mode; of the file read or written */
    uint64_t size; /* of the file */
    int64_t mtime_ns;
    uint64_t n_bytes; /* in the memfd, or written */
    uint32_t n_entries;
    uint32_t is_cut; /* there was more than max_bytes */
};

struct sbx_entry { /* then n_name bytes */
    uint64_t size;
    int64_t mtime_ns;
    uint32_t mode;
    uint32_t n_name;
};

struct sbx_denial {
    uint32_t nr;      /* of the system call */
    uint32_t err;     /* positive errno */
    uint32_t creates; /* 1: it would have made what it names */
};

/* FILES, in two forms. SBX_FILES_KEPT: one record and the content of that file, behind
 * it or, where it is longer than SBX_FILES_INLINE, as the whole of a memfd. Else a list
 * of what is gone; the last one has SBX_FILES_LAST and the totals. */
struct sbx_files {
    uint32_t n_records;
    uint32_t flags;      /* enum sbx_files_flags */
    uint64_t n_more;     /* seen, and in no record */
    uint64_t more_bytes; /* their sizes, added up */
};

enum { SBX_FILES_INLINE = 16 * 1024 };

enum sbx_files_flags {
    SBX_FILES_KEPT = 1,
    SBX_FILES_LAST = 2,
    SBX_FILES_PARTIAL = 4, /* there is more that was not looked at */
};

struct sbx_left_file { /* then n_name bytes: the name below its place */
    uint64_t size;
    uint16_t n_name;
    uint8_t place; /* enum sbx_place */
    uint8_t kind;  /* enum sbx_left_kind */
    uint8_t why;   /* enum sbx_left_why */
    uint8_t pad[3];
};

enum sbx_place { SBX_PLACE_HOME, SBX_PLACE_TMPDIR, SBX_PLACE_TMP, SBX_PLACE_SHM };

enum sbx_left_kind { SBX_LEFT_FILE, SBX_LEFT_LINK, SBX_LEFT_OTHER };

/* Why a file that `keep=` names was not sent. */
enum sbx_left_why {
    SBX_WHY_NOT_NAMED, /* it names none like it */
    SBX_WHY_KIND,      /* no regular file */
    SBX_WHY_BYTES,     /* more than keep_bytes in all */
    SBX_WHY_COUNT,     /* more than SBX_MAX_KEPT */
    SBX_WHY_UNREADABLE,
};

struct sbx_usage {
    uint64_t utime_us, stime_us, maxrss_kb;
};

#endif
