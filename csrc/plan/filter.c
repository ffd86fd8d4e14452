/* filter.c - see filter.h. The program is: architecture check, number, a balanced binary search over
 * ranges of numbers with one verdict, and at the leaves a verdict or the block of argument rules.
 *
 * Why a tree over merged ranges: the kernel runs the filter once per system call number when it is
 * loaded (its bitmap of always-allowed calls, kernel/seccomp.c seccomp_cache_prepare), so depth is
 * what loading costs. Argument blocks are leaves, so that read, write, futex and mmap stay in the
 * bitmap and cost nothing afterwards. */
#include "filter.h"

#include <errno.h>
#include <stdlib.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "plan.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "agentsbx supports x86_64 and aarch64"
#endif

enum { X32_BIT = 0x40000000, MAX_RANGES = 2 * 4096 + 8 };

/* Numbers from `first` up to the next range's first: one action, or the rules [rule, rule + n). */
struct range {
    uint32_t first;
    uint32_t action;
    size_t rule, n_rules; /* n_rules 0: the action decides */
};

struct gen {
    const struct sbx_rule *rules;
    uint32_t default_action;
    struct range *ranges;
    size_t n_ranges;
    struct sock_filter *out;
    size_t n_out;
    int err; /* first failure, positive errno */
};

static size_t emit(struct gen *g, uint16_t code, uint32_t k, size_t jt, size_t jf)
{
    if (g->n_out >= SBX_MAX_BPF || jt > 255 || jf > 255) {
        if (!g->err)
            g->err = E2BIG;
        return 0;
    }
    g->out[g->n_out] = (struct sock_filter){code, (uint8_t)jt, (uint8_t)jf, k};
    return g->n_out++;
}

static void emit_ret(struct gen *g, uint32_t action)
{
    emit(g, BPF_RET | BPF_K, action, 0, 0);
}

/* Little-endian only (both architectures): the low word of args[i] comes first. */
static void emit_load(struct gen *g, uint32_t arg, int is_high, uint32_t mask)
{
    emit(g, BPF_LD | BPF_W | BPF_ABS,
         (uint32_t)offsetof(struct seccomp_data, args) + 8 * arg + (is_high ? 4 : 0), 0, 0);
    if (mask != UINT32_MAX)
        emit(g, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
}

/* How many instructions emit_cmp makes for a comparison; jumps over it are computed from this. */
static size_t cmp_size(const struct sbx_cmp *c)
{
    uint32_t lo = (uint32_t)c->mask, hi = (uint32_t)(c->mask >> 32);
    size_t n = 0;

    if (lo || !hi)
        n += lo != UINT32_MAX ? 3 : 2;
    if (hi)
        n += hi != UINT32_MAX ? 3 : 2;
    return n;
}

/* Falls through if the comparison holds, else jumps `miss` instructions beyond its own end. */
static void emit_cmp(struct gen *g, const struct sbx_cmp *c, size_t miss)
{
    uint32_t lo = (uint32_t)c->mask, hi = (uint32_t)(c->mask >> 32);
    size_t hi_size = hi == 0 ? 0 : hi != UINT32_MAX ? 3 : 2;
    int is_eq = c->op == SBX_CMP_EQ;

    if (lo || !hi) {
        emit_load(g, c->arg, 0, lo);
        /* EQ: a wrong low word misses at once. NE: a different low word holds at once, an equal one
         * leaves the verdict to the high word (or misses, if there is none). */
        if (is_eq)
            emit(g, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)c->value, 0, miss + hi_size);
        else
            emit(g, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)c->value, hi ? 0 : miss, hi_size);
    }
    if (hi) {
        emit_load(g, c->arg, 1, hi);
        if (is_eq)
            emit(g, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(c->value >> 32), 0, miss);
        else
            emit(g, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(c->value >> 32), miss, 0);
    }
}

static int is_listable(const struct sbx_rule *r)
{
    return r->n_cmps == 1 && r->cmps[0].op == SBX_CMP_EQ && r->cmps[0].mask <= UINT32_MAX;
}

/* Length of the run of rules from `r` that ask for one of several values of the same bits. */
static size_t list_length(const struct sbx_rule *r, size_t n)
{
    size_t i = 0;

    if (!is_listable(r))
        return 0;
    for (i = 1; i < n && i < 250; i++)
        if (!is_listable(&r[i]) || r[i].action != r->action || r[i].cmps[0].arg != r->cmps[0].arg ||
            r[i].cmps[0].mask != r->cmps[0].mask)
            break;
    return i;
}

static void emit_list(struct gen *g, const struct sbx_rule *r, size_t n)
{
    emit_load(g, r->cmps[0].arg, 0, (uint32_t)r->cmps[0].mask);
    for (size_t i = 0; i < n; i++)
        emit(g, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r[i].cmps[0].value, n - 1 - i,
             i == n - 1 ? 1 : 0);
    emit_ret(g, r->action);
}

static void emit_rules(struct gen *g, const struct sbx_rule *r, size_t n)
{
    for (size_t i = 0; i < n && !g->err;) {
        size_t run = list_length(&r[i], n - i), rest = 1; /* 1: the RET behind the comparisons */

        if (run > 0) {
            emit_list(g, &r[i], run);
            i += run;
            continue;
        }
        for (uint32_t c = 0; c < r[i].n_cmps; c++)
            rest += cmp_size(&r[i].cmps[c]);
        for (uint32_t c = 0; c < r[i].n_cmps; c++) {
            rest -= cmp_size(&r[i].cmps[c]);
            emit_cmp(g, &r[i].cmps[c], rest);
        }
        emit_ret(g, r[i].action);
        if (r[i].n_cmps == 0)
            return; /* the rest can never be reached; the kernel refuses nothing, but depth counts */
        i++;
    }
    emit_ret(g, g->default_action);
}

/* Ranges [lo, hi): recursion depth is log2 of MAX_RANGES. */
static void emit_tree(struct gen *g, size_t lo, size_t hi)
{
    size_t mid = lo + (hi - lo) / 2, jump, left;

    if (g->err)
        return;
    if (hi - lo == 1) {
        if (g->ranges[lo].n_rules)
            emit_rules(g, &g->rules[g->ranges[lo].rule], g->ranges[lo].n_rules);
        else
            emit_ret(g, g->ranges[lo].action);
        return;
    }
    jump = emit(g, BPF_JMP | BPF_JGE | BPF_K, g->ranges[mid].first, 0, 0);
    emit_tree(g, lo, mid);
    left = g->n_out - jump - 1;
    if (left <= 255) {
        g->out[jump].jt = (uint8_t)left;
    } else {
        /* Conditional jumps reach 255 instructions: go over an unconditional one. All jumps inside
         * the left half are relative, so it may move. */
        emit(g, BPF_RET | BPF_K, 0, 0, 0);
        if (g->err)
            return;
        for (size_t i = g->n_out - 1; i > jump + 1; i--)
            g->out[i] = g->out[i - 1];
        g->out[jump + 1] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)left);
        g->out[jump].jf = 1;
    }
    emit_tree(g, mid, hi);
}

static void add_range(struct gen *g, uint32_t first, uint32_t action, size_t rule, size_t n_rules)
{
    struct range *last = g->n_ranges ? &g->ranges[g->n_ranges - 1] : NULL;

    if (last && last->first == first) { /* replaces an empty gap */
        g->n_ranges--;
        last = g->n_ranges ? &g->ranges[g->n_ranges - 1] : NULL;
    }
    if (last && !n_rules && !last->n_rules && last->action == action)
        return;
    g->ranges[g->n_ranges++] = (struct range){first, action, rule, n_rules};
}

/* Cut the number line into ranges. `n` rules from index `start`, sorted and checked. */
static void make_ranges(struct gen *g, size_t start, size_t n, uint32_t arch)
{
    uint32_t dflt = g->default_action;

    add_range(g, 0, dflt, 0, 0);
    for (size_t i = start; i < n;) {
        uint32_t nr = (uint32_t)g->rules[i].nr;
        size_t end = i + 1;

        while (end < n && g->rules[end].nr == g->rules[i].nr)
            end++;
        if (g->rules[i].n_cmps == 0)
            add_range(g, nr, g->rules[i].action, 0, 0);
        else
            add_range(g, nr, 0, i, end - i);
        add_range(g, nr + 1, dflt, 0, 0);
        i = end;
    }
    add_range(g, SBX_CANARY_NR, SECCOMP_RET_ERRNO | SBX_CANARY_ERRNO, 0, 0);
    add_range(g, SBX_CANARY_NR + 1, dflt, 0, 0);
    if (arch == AUDIT_ARCH_X86_64) {
        /* x32 numbers have their own meaning for pointers. -1 is what a tracer or a program writes
         * for "no call": it has no x32 meaning and gets the ordinary answer. */
        add_range(g, X32_BIT, SECCOMP_RET_KILL_PROCESS, 0, 0);
        add_range(g, UINT32_MAX, dflt, 0, 0);
    }
}

static int is_known_action(uint32_t action)
{
    switch (action & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ERRNO:
        return (action & SECCOMP_RET_DATA) > 0 && (action & SECCOMP_RET_DATA) < 4096;
    case SECCOMP_RET_ALLOW:
    case SECCOMP_RET_USER_NOTIF:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_KILL_PROCESS:
        return (action & SECCOMP_RET_DATA) == 0;
    default:
        return 0;
    }
}

static int is_good_rule(const struct sbx_rule *r, int32_t last_nr)
{
    if (r->nr < 0 || r->nr >= SBX_CANARY_NR || r->nr < last_nr || r->n_cmps > SBX_MAX_CMPS ||
        r->pad != 0 || !is_known_action(r->action))
        return 0;
    for (uint32_t i = 0; i < r->n_cmps; i++) {
        const struct sbx_cmp *c = &r->cmps[i];

        if (c->arg > 5 || c->op > SBX_CMP_NE || c->mask == 0 || (c->value & ~c->mask))
            return 0;
    }
    return 1;
}

int sbx_filter_build(const struct sbx_rule *rules, size_t n, uint32_t default_action, void **bpf,
                     size_t *n_bytes, struct sbx_err *e)
{
    struct gen g = {.rules = rules, .default_action = default_action};
    uint32_t arch = NATIVE_ARCH;
    size_t start = 0;
    int32_t last_nr = 0;

    *bpf = NULL;
    *n_bytes = 0;
    if (!is_known_action(default_action))
        return sbx_fail(e, SBX_STAGE_SECCOMP, 0, EINVAL);
    if (n > 0 && rules[0].nr == SBX_RULE_ARCH) {
        arch = rules[0].action;
        start = 1;
        if (arch != AUDIT_ARCH_X86_64 && arch != AUDIT_ARCH_AARCH64)
            return sbx_fail(e, SBX_STAGE_SECCOMP, 0, EINVAL);
    }
    for (size_t i = start; i < n; i++) {
        if (!is_good_rule(&rules[i], last_nr))
            return sbx_fail(e, SBX_STAGE_SECCOMP, (unsigned)i, EINVAL);
        last_nr = rules[i].nr;
    }
    g.ranges = calloc(MAX_RANGES, sizeof(*g.ranges));
    g.out = calloc(SBX_MAX_BPF, sizeof(*g.out));
    if (!g.ranges || !g.out) {
        g.err = ENOMEM;
    } else {
        make_ranges(&g, start, n, arch);
        emit(&g, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
        emit(&g, BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0);
        emit_ret(&g, SECCOMP_RET_KILL_PROCESS);
        emit(&g, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
        emit_tree(&g, 0, g.n_ranges);
    }
    free(g.ranges);
    if (g.err) {
        free(g.out);
        return sbx_fail(e, SBX_STAGE_SECCOMP, 0, g.err);
    }
    *bpf = g.out;
    *n_bytes = g.n_out * sizeof(*g.out);
    return 0;
}
