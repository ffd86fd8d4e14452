/* filter.c - see filter.h. The program is: architecture check, number, a balanced
 * binary search over ranges of numbers with one verdict, and at the leaves a verdict or
 * the block of argument rules.
 *
 * Why a tree over merged ranges: when a filter is loaded the kernel runs it once per
 * system call number (its bitmap of always-allowed calls, kernel/seccomp.c
 * seccomp_cache_prepare) and translates every instruction, so depth and size are what
 * loading costs. Argument blocks are leaves, so that read, write, futex and mmap stay
 * in the bitmap and cost nothing afterwards. */
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

/* Numbers from `first` up to the next range's first: one action, or the rules [rule,
 * rule + n). */
struct range {
    uint32_t first;
    uint32_t action;
    size_t rule, n_rules; /* n_rules 0: the action decides */
    size_t at;            /* label of the rules' code */
};

/* A place in the program, counted from its end: code is made backwards, since BPF only
 * jumps forwards and so every target exists when the jump to it is made. */
typedef size_t label; /* index into gen.rev */

struct gen {
    const struct sbx_rule *rules;
    uint32_t default_action;
    struct range *ranges;
    size_t n_ranges;
    /* the program in reverse: rev[0] is its last instruction */
    struct sock_filter *rev;
    size_t n_rev;
    int err; /* first failure, positive errno */
};

static label emit(struct gen *g, uint16_t code, uint32_t k, size_t jt, size_t jf)
{
    if (g->n_rev >= SBX_MAX_BPF || jt > UINT8_MAX || jf > UINT8_MAX) {
        if (!g->err)
            g->err = E2BIG;
        return 0;
    }
    g->rev[g->n_rev] = (struct sock_filter){code, (uint8_t)jt, (uint8_t)jf, k};
    return g->n_rev++;
}

/* Instructions that the next one would have to skip to reach `to`. */
static size_t distance(const struct gen *g, label to)
{
    return g->n_rev - 1 - to;
}

/* A label that means `to` and that the instruction after the next may still reach. */
static label near_label(struct gen *g, label to)
{
    if (g->err || distance(g, to) < UINT8_MAX - 1)
        return to;
    if (g->rev[to].code == (BPF_RET | BPF_K))
        return emit(g, BPF_RET | BPF_K, g->rev[to].k, 0, 0);
    return emit(g, BPF_JMP | BPF_JA, (uint32_t)distance(g, to), 0, 0);
}

static label emit_branch(struct gen *g, uint16_t op, uint32_t k, label yes, label no)
{
    yes = near_label(g, yes);
    no = near_label(g, no);
    if (g->err)
        return 0;
    return emit(g, BPF_JMP | op | BPF_K, k, distance(g, yes), distance(g, no));
}

/* The nearest instruction that returns `action`, or a new one. */
static label emit_ret(struct gen *g, uint32_t action)
{
    for (size_t i = g->n_rev; i-- > 0 && distance(g, i) < UINT8_MAX - 1;)
        if (g->rev[i].code == (BPF_RET | BPF_K) && g->rev[i].k == action)
            return i;
    return emit(g, BPF_RET | BPF_K, action, 0, 0);
}

/* Load half of an argument before the instruction made last. Little-endian only (both
 * architectures): the low word of args[i] comes first. */
static label emit_load(struct gen *g, uint32_t arg, int is_high, uint32_t mask)
{
    if (mask != UINT32_MAX)
        emit(g, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
    return emit(g, BPF_LD | BPF_W | BPF_ABS,
                (uint32_t)offsetof(struct seccomp_data, args) + 8 * arg +
                    (is_high ? 4 : 0),
                0, 0);
}

static label emit_cmp(struct gen *g, const struct sbx_cmp *c, label hit, label miss)
{
    uint32_t lo = (uint32_t)c->mask, hi = (uint32_t)(c->mask >> 32);
    int is_eq = c->op == SBX_CMP_EQ;
    label differs = is_eq ? miss : hit, same = is_eq ? hit : miss;

    if (hi) {
        emit_branch(g, BPF_JEQ, (uint32_t)(c->value >> 32), same, differs);
        same = emit_load(g, c->arg, 1, hi);
    }
    if (lo) {
        emit_branch(g, BPF_JEQ, (uint32_t)c->value, same, differs);
        same = emit_load(g, c->arg, 0, lo);
    }
    return same;
}

static int is_same_cmp(const struct sbx_cmp *a, const struct sbx_cmp *b, int with_value)
{
    return a->arg == b->arg && a->op == b->op && a->mask == b->mask &&
           (!with_value || a->value == b->value);
}

/* May rules a and b share all comparisons but the value of the last, an int? */
static int is_same_list(const struct sbx_rule *a, const struct sbx_rule *b)
{
    uint32_t last = a->n_cmps - 1;

    if (a->action != b->action || a->n_cmps == 0 || a->n_cmps != b->n_cmps ||
        a->cmps[last].op != SBX_CMP_EQ || a->cmps[last].mask > UINT32_MAX)
        return 0;
    for (uint32_t i = 0; i < last; i++)
        if (!is_same_cmp(&a->cmps[i], &b->cmps[i], 1))
            return 0;
    return is_same_cmp(&a->cmps[last], &b->cmps[last], 0);
}

/* Rules [0, n) that are one list, else `miss`. Consecutive values become one range. */
static label emit_list(struct gen *g, const struct sbx_rule *r, size_t n, label miss)
{
    uint32_t last = r->n_cmps - 1;
    label hit = emit_ret(g, r->action), at = miss;

    for (size_t end = n; end > 0 && !g->err;) {
        size_t first = end - 1;
        uint32_t high = (uint32_t)r[first].cmps[last].value;

        while (first > 0 &&
               r[first - 1].cmps[last].value + 1 == r[first].cmps[last].value)
            first--;
        if (end - first > 2) {
            label below = emit_branch(g, BPF_JGT, high, at, hit);

            at =
                emit_branch(g, BPF_JGE, (uint32_t)r[first].cmps[last].value, below, at);
        } else {
            first = end - 1;
            at = emit_branch(g, BPF_JEQ, high, hit, at);
        }
        end = first;
    }
    at = emit_load(g, r->cmps[last].arg, 0, (uint32_t)r->cmps[last].mask);
    for (uint32_t i = last; i-- > 0;)
        at = emit_cmp(g, &r->cmps[i], at, miss);
    return at;
}

static label emit_rules(struct gen *g, const struct sbx_rule *r, size_t n)
{
    uint32_t otherwise = r[n - 1].n_cmps == 0 ? r[n - 1].action : g->default_action;
    label at = emit_ret(g, otherwise);

    for (size_t end = n; end > 0 && !g->err;) {
        const struct sbx_rule *rule = &r[end - 1];
        size_t first = end - 1;
        label hit, miss = at;

        while (first > 0 && is_same_list(rule, &r[first - 1]))
            first--;
        end = first;
        if (rule > &r[first]) {
            at = emit_list(g, &r[first], (size_t)(rule - &r[first]) + 1, miss);
            continue;
        }
        hit = emit_ret(g, rule->action);
        for (uint32_t i = rule->n_cmps; i-- > 0;)
            hit = emit_cmp(g, &rule->cmps[i], hit, miss);
        at = hit;
    }
    return at;
}

static int is_same_block(const struct gen *g, const struct range *a,
                         const struct range *b)
{
    if (a->n_rules != b->n_rules || a->n_rules == 0)
        return 0;
    for (size_t i = 0; i < a->n_rules; i++) {
        const struct sbx_rule *x = &g->rules[a->rule + i], *y = &g->rules[b->rule + i];

        if (x->action != y->action || x->n_cmps != y->n_cmps)
            return 0;
        for (uint32_t c = 0; c < x->n_cmps; c++)
            if (!is_same_cmp(&x->cmps[c], &y->cmps[c], 1))
                return 0;
    }
    return 1;
}

static label emit_leaf(struct gen *g, size_t i)
{
    struct range *range = &g->ranges[i];

    if (range->n_rules == 0)
        return emit_ret(g, range->action);
    for (size_t later = i + 1; later < g->n_ranges; later++)
        if (is_same_block(g, range, &g->ranges[later]))
            return range->at = g->ranges[later].at;
    return range->at = emit_rules(g, &g->rules[range->rule], range->n_rules);
}

/* Ranges [lo, hi): recursion depth is log2 of MAX_RANGES. The higher half is made
 * first, so that all later ranges have their labels. */
static label emit_tree(struct gen *g, size_t lo, size_t hi)
{
    size_t mid = lo + (hi - lo) / 2;
    label above, below;

    if (g->err)
        return 0;
    if (hi - lo == 1)
        return emit_leaf(g, lo);
    above = emit_tree(g, mid, hi);
    below = emit_tree(g, lo, mid);
    return above == below ? above
                          : emit_branch(g, BPF_JGE, g->ranges[mid].first, above, below);
}

static void add_range(struct gen *g, uint32_t first, uint32_t action, size_t rule,
                      size_t n_rules)
{
    struct range *last = g->n_ranges ? &g->ranges[g->n_ranges - 1] : NULL;

    if (last && last->first == first) { /* replaces an empty gap */
        g->n_ranges--;
        last = g->n_ranges ? &g->ranges[g->n_ranges - 1] : NULL;
    }
    if (last && !n_rules && !last->n_rules && last->action == action)
        return;
    g->ranges[g->n_ranges++] = (struct range){first, action, rule, n_rules, 0};
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
        /* x32 numbers have their own meaning for pointers. -1 is what a tracer or a
         * program writes for "no call": it has no x32 meaning and gets the ordinary
         * answer. */
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
    case SECCOMP_RET_KILL_PROCESS: return (action & SECCOMP_RET_DATA) == 0;
    default: return 0;
    }
}

static int is_good_rule(const struct sbx_rule *r, int32_t last_nr)
{
    if (r->nr < 0 || r->nr >= SBX_CANARY_NR || r->nr < last_nr ||
        r->n_cmps > SBX_MAX_CMPS || r->pad != 0 || !is_known_action(r->action))
        return 0;
    for (uint32_t i = 0; i < r->n_cmps; i++) {
        const struct sbx_cmp *c = &r->cmps[i];

        if (c->arg > 5 || c->op > SBX_CMP_NE || c->mask == 0 || (c->value & ~c->mask))
            return 0;
    }
    return 1;
}

static void emit_program(struct gen *g, uint32_t arch)
{
    label tree = emit_tree(g, 0, g->n_ranges), kill;

    if (!g->err &&
        tree != g->n_rev - 1) /* what follows the load of the number must be the tree */
        emit(g, BPF_JMP | BPF_JA, (uint32_t)distance(g, tree), 0, 0);
    tree = emit(g, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    kill = emit(g, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    emit_branch(g, BPF_JEQ, arch, tree, kill);
    emit(g, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
}

int sbx_filter_build(const struct sbx_rule *rules, size_t n, uint32_t default_action,
                     void **bpf, size_t *n_bytes, struct sbx_err *e)
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
    g.rev = calloc(SBX_MAX_BPF, sizeof(*g.rev));
    if (!g.ranges || !g.rev) {
        g.err = ENOMEM;
    } else {
        make_ranges(&g, start, n, arch);
        emit_program(&g, arch);
    }
    free(g.ranges);
    if (g.err) {
        free(g.rev);
        return sbx_fail(e, SBX_STAGE_SECCOMP, 0, g.err);
    }
    for (size_t i = 0; i < g.n_rev / 2; i++) {
        struct sock_filter swap = g.rev[i];

        g.rev[i] = g.rev[g.n_rev - 1 - i];
        g.rev[g.n_rev - 1 - i] = swap;
    }
    *bpf = g.rev;
    *n_bytes = g.n_rev * sizeof(*g.rev);
    return 0;
}
