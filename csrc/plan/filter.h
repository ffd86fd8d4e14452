/* filter.h - system call rules -> a classic BPF program for seccomp(2).
 *
 * What it is for: the host process compiles the rules of a policy (agentsbx/_filter.py
 * makes them from the tables in agentsbx/data) once; the program travels in the plan
 * and the child loads it raw. May be called: in the host process only, on any thread
 * (pure: no globals; allocates). Needs no library:
 * docs/decisions/0002-own-bpf-generator.md says why not libseccomp.
 *
 * A rule is 112 bytes, native endian, no padding that matters:
 *
 *   offset size
 *      0    4   nr      int32: system call number 0..4095, or SBX_RULE_ARCH (then
 * action is the AUDIT_ARCH_* value; only as the first rule; default: the native one) 4
 * 4   action  SECCOMP_RET_* (ALLOW, ERRNO | errno, USER_NOTIF, LOG, KILL_PROCESS) 8 4
 * n_cmps  uint32: 0..4, all comparisons must hold; 0 = always matches 12    4   pad 0
 *     16   24*4 cmps    arg u32 (0..5) | op u32 (SBX_CMP_EQ, SBX_CMP_NE) | mask u64
 *                       | value u64
 *
 * Rules are sorted by nr; the rules of one nr are tried in order, the first match
 * decides; no match and numbers without a rule get default_action. A comparison is
 * (argument & mask) op value; a mask without upper 32 bits never looks at the upper
 * half (int arguments have junk there). value must lie within mask (EINVAL): such a
 * comparison could never hold.
 *
 * Every program also: kills on another architecture and (x86_64) on x32 numbers, and
 * answers SBX_CANARY_NR with SBX_CANARY_ERRNO.
 */
#ifndef SBX_FILTER_H
#define SBX_FILTER_H

#include <stddef.h>
#include <stdint.h>

#include "../base/err.h"

enum { SBX_MAX_CMPS = 4, SBX_RULE_ARCH = -2 };
enum sbx_cmp_op { SBX_CMP_EQ = 0, SBX_CMP_NE = 1 };

struct sbx_cmp {
    uint32_t arg, op;
    uint64_t mask, value;
};

struct sbx_rule {
    int32_t nr;
    uint32_t action, n_cmps, pad;
    struct sbx_cmp cmps[SBX_MAX_CMPS];
};

/* Compile `n` rules. *bpf is a malloc'ed array of struct sock_filter, *n_bytes its
 * size; the caller frees it. 0 or -errno with stage SECCOMP in *e, op = index of the
 * bad rule (modulo 65536), and then *bpf is NULL: EINVAL a rule that is malformed or
 * out of order, E2BIG more than BPF_MAXINSNS instructions or a block that a jump cannot
 * cross, ENOMEM. Source: seccomp(2), bpf(4). */
int sbx_filter_build(const struct sbx_rule *rules, size_t n, uint32_t default_action,
                     void **bpf, size_t *n_bytes, struct sbx_err *e);

#endif
