/*
 * Drivers inline every call before they look at a specialization constant, so that a chain of twelve steps costs a
 * software device half a second: twelve copies of a switch over all functions. Here the branches that constants decide
 * are taken out first, together with what is then never reached; that takes a thousandth of it.
 *
 * It is an abstract interpretation of the whole module. Of each 32-bit integer and boolean it finds the values that
 * can occur, some few or any, without regard to order: a variable holds what any reached store puts there, a parameter
 * what any reached call hands over. Blocks are reached through branches that such values allow. All of it only grows,
 * until nothing changes. Whatever is not understood can be any value, so that at worst too much stays.
 */
#include "gpu/prune.h"

#include <string.h>

enum {
    MOST = 16, /* values told apart: at least as many as a chain has steps */
    HEADER = 5 /* words before the first instruction */
};

enum { /* SPIR-V's numbers of what is understood */
       OP_NAME = 5,
       OP_ENTRY_POINT = 15,
       OP_TYPE_FIRST = 19,
       OP_TYPE_BOOL = 20,
       OP_TYPE_INT = 21,
       OP_TYPE_POINTER = 32,
       OP_TYPE_LAST = 39,
       OP_CONSTANT_TRUE = 41,
       OP_CONSTANT_FALSE = 42,
       OP_CONSTANT = 43,
       OP_CONSTANT_NULL = 46,
       OP_SPEC_TRUE = 48,
       OP_SPEC_FALSE = 49,
       OP_SPEC_CONSTANT = 50,
       OP_SPEC_OP = 52,
       OP_FUNCTION = 54,
       OP_PARAMETER = 55,
       OP_FUNCTION_END = 56,
       OP_CALL = 57,
       OP_VARIABLE = 59,
       OP_LOAD = 61,
       OP_STORE = 62,
       OP_DECORATE = 71,
       OP_COPY = 83,
       OP_BITCAST = 124,
       OP_NEGATE = 126,
       OP_IADD = 128,
       OP_ISUB = 130,
       OP_IMUL = 132,
       OP_UDIV = 134,
       OP_UMOD = 137,
       OP_LOGICAL_EQUAL = 164,
       OP_LOGICAL_NOT_EQUAL = 165,
       OP_LOGICAL_OR = 166,
       OP_LOGICAL_AND = 167,
       OP_LOGICAL_NOT = 168,
       OP_SELECT = 169,
       OP_IEQUAL = 170,
       OP_INOT_EQUAL = 171,
       OP_UGREATER = 172,
       OP_SGREATER = 173,
       OP_UGREATER_EQUAL = 174,
       OP_SGREATER_EQUAL = 175,
       OP_ULESS = 176,
       OP_SLESS = 177,
       OP_ULESS_EQUAL = 178,
       OP_SLESS_EQUAL = 179,
       OP_SHIFT_RIGHT = 194,
       OP_SHIFT_LEFT = 196,
       OP_OR = 197,
       OP_XOR = 198,
       OP_AND = 199,
       OP_NOT = 200,
       OP_PHI = 245,
       OP_LOOP_MERGE = 246,
       OP_SELECTION_MERGE = 247,
       OP_LABEL = 248,
       OP_BRANCH = 249,
       OP_BRANCH_CONDITIONAL = 250,
       OP_SWITCH = 251,
       OP_RETURN_VALUE = 254,
       OP_UNREACHABLE = 255,
       OP_TYPE_COOPERATIVE_MATRIX = 4456,
       DECORATION_SPEC_ID = 1,
       STORAGE_PRIVATE = 6,
       STORAGE_FUNCTION = 7,
};

typedef enum role {
    NOTHING,      /* a result that may be anything, or no result */
    TYPE,         /* any other type */
    TYPE_WORD,    /* a boolean, or an integer of 32 bits */
    TYPE_POINTER, /* to such a one, which only this invocation sees */
    VALUE,        /* of TYPE_WORD */
    CELL          /* a variable, or a parameter by reference, of TYPE_POINTER */
} role;

typedef struct values { /* none at all: not reached yet */
    uint32_t v[MOST];
    uint8_t count;
    bool any;
} values;

typedef struct block {
    uint32_t label, function;        /* index of the function */
    uint32_t begin, terminator, end; /* in words of the module */
    bool reached;
    uint32_t header; /* of the loop that names it where to continue, when only so it must stay; 0: none */
    bool merge;      /* it is named as one */
} block;

typedef struct function {
    uint32_t id, begin, body, end;
    uint32_t entry; /* index of its first block */
    bool reached;
} function;

typedef struct pruner {
    const uint32_t *code;
    uint32_t words, bound;
    const uint32_t *spec;
    uint32_t spec_count;
    /* by id */
    uint8_t *role;
    uint32_t *spec_id;                /* that and 1; 0: none */
    uint32_t *block_of, *function_of; /* index and 1; 0: none */
    bool *gone;                       /* defined in what does not stay */
    values *of;                       /* of values, cells, and by a function's id what it returns */
    block *blocks;
    function *functions;
    uint32_t block_count, function_count, entry;
    bool changed;
} pruner;

static uint32_t op_at(const pruner *p, uint32_t at)
{
    return p->code[at] & 0xffff;
}

static uint32_t size_at(const pruner *p, uint32_t at)
{
    return p->code[at] >> 16;
}

static role role_of(const pruner *p, uint32_t id)
{
    return id < p->bound ? (role)p->role[id] : NOTHING;
}

static bool is_type(const pruner *p, uint32_t id)
{
    role r = role_of(p, id);
    return r == TYPE || r == TYPE_WORD || r == TYPE_POINTER;
}

/* ---------------------------------------------------------------- sets of values */

static const values anything = {.any = true};

static values one(uint32_t x)
{
    return (values){.v = {x}, .count = 1};
}

static bool has(const values *x, uint32_t v)
{
    for (uint32_t i = 0; i < x->count; i++)
        if (x->v[i] == v)
            return true;
    return x->any;
}

static bool is_none(const values *x)
{
    return !x->any && x->count == 0;
}

static bool is_only(const values *x, uint32_t v)
{
    return !x->any && x->count == 1 && x->v[0] == v;
}

static bool add(values *to, uint32_t v)
{
    if (has(to, v))
        return false;
    if (to->count == MOST)
        to->any = true;
    else
        to->v[to->count++] = v;
    return true;
}

static values get(const pruner *p, uint32_t id)
{
    return role_of(p, id) == VALUE ? p->of[id] : anything;
}

static void learn(pruner *p, uint32_t id, values x)
{
    values *to = &p->of[id];
    if (to->any)
        return;
    if (x.any)
        to->any = p->changed = true;
    for (uint32_t i = 0; i < x.count; i++)
        p->changed |= add(to, x.v[i]);
}

/* False where the result is not known. Booleans are 0 and 1. */
static bool fold(uint32_t op, uint32_t a, uint32_t b, uint32_t *y)
{
    switch (op) {
    case OP_COPY:
    case OP_BITCAST: *y = a; return true;
    case OP_NEGATE: *y = 0u - a; return true;
    case OP_NOT: *y = ~a; return true;
    case OP_LOGICAL_NOT: *y = !a; return true;
    case OP_IADD: *y = a + b; return true;
    case OP_ISUB: *y = a - b; return true;
    case OP_IMUL: *y = a * b; return true;
    case OP_UDIV: *y = b ? a / b : 0; return b != 0;
    case OP_UMOD: *y = b ? a % b : 0; return b != 0;
    case OP_LOGICAL_EQUAL:
    case OP_IEQUAL: *y = a == b; return true;
    case OP_LOGICAL_NOT_EQUAL:
    case OP_INOT_EQUAL: *y = a != b; return true;
    case OP_LOGICAL_OR:
    case OP_OR: *y = a | b; return true;
    case OP_LOGICAL_AND:
    case OP_AND: *y = a & b; return true;
    case OP_XOR: *y = a ^ b; return true;
    case OP_UGREATER: *y = a > b; return true;
    case OP_SGREATER: *y = (int32_t)a > (int32_t)b; return true;
    case OP_UGREATER_EQUAL: *y = a >= b; return true;
    case OP_SGREATER_EQUAL: *y = (int32_t)a >= (int32_t)b; return true;
    case OP_ULESS: *y = a < b; return true;
    case OP_SLESS: *y = (int32_t)a < (int32_t)b; return true;
    case OP_ULESS_EQUAL: *y = a <= b; return true;
    case OP_SLESS_EQUAL: *y = (int32_t)a <= (int32_t)b; return true;
    case OP_SHIFT_RIGHT: *y = b < 32 ? a >> b : 0; return b < 32;
    case OP_SHIFT_LEFT: *y = b < 32 ? a << b : 0; return b < 32;
    default: return false;
    }
}

static bool is_unary(uint32_t op)
{
    return op == OP_COPY || op == OP_BITCAST || op == OP_NEGATE || op == OP_NOT || op == OP_LOGICAL_NOT;
}

static values chosen(const values *condition, const values *yes, const values *no)
{
    values y = {0};
    if (has(condition, 1))
        y = *yes;
    for (uint32_t i = 0; has(condition, 0) && i < no->count; i++)
        add(&y, no->v[i]);
    y.any |= has(condition, 0) && no->any;
    return y;
}

/* The result of an operation on count ids; nothing while an operand is not reached. */
static values compute(const pruner *p, uint32_t op, const uint32_t *ids, uint32_t count)
{
    values a = get(p, ids[0]), b = count > 1 ? get(p, ids[1]) : one(0), y = {0};
    if (op == OP_SELECT && count == 3) {
        values c = get(p, ids[2]);
        return chosen(&a, &b, &c);
    }
    if (count != (is_unary(op) ? 1u : 2u))
        return anything;
    if (is_none(&a) || is_none(&b))
        return y;
    if ((op == OP_LOGICAL_AND || op == OP_AND) && (is_only(&a, 0) || is_only(&b, 0)))
        return one(0);
    if (op == OP_LOGICAL_OR && (is_only(&a, 1) || is_only(&b, 1)))
        return one(1);
    if (a.any || b.any)
        return anything;
    for (uint32_t i = 0; i < a.count; i++)
        for (uint32_t k = 0; k < b.count; k++) {
            uint32_t x;
            if (!fold(op, a.v[i], b.v[k], &x))
                return anything;
            add(&y, x);
        }
    return y;
}

/* ---------------------------------------------------------------- reading the module */

static bool is_terminator(uint32_t op)
{
    return op >= OP_BRANCH && op <= OP_UNREACHABLE;
}

static bool names_type(uint32_t op)
{
    return (op >= OP_TYPE_FIRST && op <= OP_TYPE_LAST) || op == OP_TYPE_COOPERATIVE_MATRIX;
}

static role type_role(const pruner *p, uint32_t op, const uint32_t *w, uint32_t size)
{
    if (op == OP_TYPE_BOOL || (op == OP_TYPE_INT && size == 4 && w[2] == 32))
        return TYPE_WORD;
    if (op == OP_TYPE_POINTER && size == 4 && (w[2] == STORAGE_FUNCTION || w[2] == STORAGE_PRIVATE) &&
        role_of(p, w[3]) == TYPE_WORD)
        return TYPE_POINTER;
    return TYPE;
}

/* What stands for a constant: w[1] is its type, w[2] its id. */
static values constant(const pruner *p, uint32_t op, const uint32_t *w, uint32_t size)
{
    uint32_t k = p->spec_id[w[2]], given = k != 0 && k <= p->spec_count;
    switch (op) {
    case OP_CONSTANT: return one(w[3]);
    case OP_CONSTANT_TRUE: return one(1);
    case OP_CONSTANT_FALSE:
    case OP_CONSTANT_NULL: return one(0);
    case OP_SPEC_CONSTANT: return one(given ? p->spec[k - 1] : w[3]);
    case OP_SPEC_TRUE:
    case OP_SPEC_FALSE: return one(given ? p->spec[k - 1] != 0 : op == OP_SPEC_TRUE);
    case OP_SPEC_OP: return size > 4 ? compute(p, w[3], w + 4, size - 4) : anything;
    default: return anything;
    }
}

/* A result: which role it has, and outside functions what it is. */
static void read_result(pruner *p, uint32_t op, const uint32_t *w, uint32_t size, bool inside)
{
    role type = role_of(p, w[1]);
    if (op == OP_VARIABLE || op == OP_PARAMETER)
        p->role[w[2]] = type == TYPE_POINTER ? CELL : type == TYPE_WORD ? VALUE : NOTHING;
    else
        p->role[w[2]] = type == TYPE_WORD ? VALUE : NOTHING;
    if (op == OP_VARIABLE && size > 4 && p->role[w[2]] == CELL)
        learn(p, w[2], get(p, w[4]));
    if (!inside && p->role[w[2]] == VALUE)
        learn(p, w[2], constant(p, op, w, size));
}

/* Where functions and blocks begin and end. False if the module is not what is understood. */
static bool read_module(pruner *p)
{
    function *f = NULL;
    block *b = NULL;
    for (uint32_t at = HEADER, size; at < p->words; at += size) {
        const uint32_t *w = p->code + at;
        uint32_t op = op_at(p, at);
        size = size_at(p, at);
        if (size == 0 || size > p->words - at)
            return false;
        if (op == OP_ENTRY_POINT)
            p->entry = w[2];
        else if (op == OP_DECORATE && size == 4 && w[2] == DECORATION_SPEC_ID && w[1] < p->bound)
            p->spec_id[w[1]] = w[3] + 1;
        else if (names_type(op) && w[1] < p->bound)
            p->role[w[1]] = (uint8_t)type_role(p, op, w, size);
        else if (size > 2 && is_type(p, w[1]) && w[2] < p->bound)
            read_result(p, op, w, size, b != NULL || op == OP_FUNCTION || op == OP_PARAMETER);
        if (op == OP_FUNCTION && w[2] < p->bound) {
            f = &p->functions[p->function_count++];
            *f = (function){.id = w[2], .begin = at, .entry = p->block_count};
            p->function_of[w[2]] = p->function_count;
        } else if (op == OP_FUNCTION_END && f) {
            f->end = at + size;
        } else if (op == OP_LABEL && f && w[1] < p->bound) {
            if (f->body == 0)
                f->body = at;
            b = &p->blocks[p->block_count++];
            *b = (block){.label = w[1], .function = p->function_count - 1, .begin = at};
            p->block_of[w[1]] = p->block_count;
        } else if (is_terminator(op)) {
            if (!b || (op == OP_SWITCH && role_of(p, w[1]) != VALUE))
                return false; /* literals of another width */
            b->terminator = at;
            b->end = at + size;
            b = NULL;
        }
    }
    return p->entry < p->bound && p->function_of[p->entry] != 0;
}

/* ---------------------------------------------------------------- what is reached */

static block *block_named(pruner *p, uint32_t label)
{
    return &p->blocks[p->block_of[label] - 1];
}

static void reach(pruner *p, uint32_t label)
{
    block *b = block_named(p, label);
    p->changed |= !b->reached;
    b->reached = true;
}

static void reach_function(pruner *p, function *f)
{
    f->reached = true;
    if (f->body)
        reach(p, p->blocks[f->entry].label);
}

/* May a switch go where none of its literals says? */
static bool default_taken(const pruner *p, uint32_t at)
{
    values s = get(p, p->code[at + 1]);
    for (uint32_t i = 0; i < s.count; i++) {
        bool found = false;
        for (uint32_t k = 3; k + 1 < size_at(p, at) && !found; k += 2)
            found = p->code[at + k] == s.v[i];
        if (!found)
            return true;
    }
    return s.any;
}

/* May block b go to that label? */
static bool goes_to(const pruner *p, const block *b, uint32_t label)
{
    const uint32_t *w = p->code + b->terminator;
    uint32_t op = op_at(p, b->terminator);
    if (op == OP_BRANCH)
        return w[1] == label;
    if (op != OP_BRANCH_CONDITIONAL && op != OP_SWITCH)
        return false;
    values s = get(p, w[1]);
    if (op == OP_BRANCH_CONDITIONAL)
        return (w[2] == label && has(&s, 1)) || (w[3] == label && has(&s, 0));
    for (uint32_t k = 3; k + 1 < size_at(p, b->terminator); k += 2)
        if (w[k + 1] == label && has(&s, w[k]))
            return true;
    return w[2] == label && default_taken(p, b->terminator);
}

static void leave(pruner *p, const block *b)
{
    const uint32_t *w = p->code + b->terminator;
    uint32_t op = op_at(p, b->terminator), size = size_at(p, b->terminator);
    if (op == OP_RETURN_VALUE)
        learn(p, p->functions[b->function].id, get(p, w[1]));
    if (op == OP_BRANCH)
        reach(p, w[1]);
    if (op != OP_BRANCH_CONDITIONAL && op != OP_SWITCH)
        return;
    values s = get(p, w[1]);
    if (op == OP_BRANCH_CONDITIONAL ? has(&s, 1) : default_taken(p, b->terminator))
        reach(p, w[2]);
    if (op == OP_BRANCH_CONDITIONAL && has(&s, 0))
        reach(p, w[3]);
    for (uint32_t k = 3; op == OP_SWITCH && k + 1 < size; k += 2)
        if (has(&s, w[k]))
            reach(p, w[k + 1]);
}

/* Parameters get the arguments. What a function writes to a parameter by reference, the caller's variable gets. */
static void call(pruner *p, const uint32_t *w, uint32_t size)
{
    function *f = &p->functions[p->function_of[w[3]] - 1];
    uint32_t at = f->begin + size_at(p, f->begin);
    reach_function(p, f);
    for (uint32_t k = 4; k < size && op_at(p, at) == OP_PARAMETER; k++, at += size_at(p, at)) {
        uint32_t parameter = p->code[at + 2];
        bool cell = role_of(p, w[k]) == CELL;
        if (role_of(p, parameter) == CELL)
            learn(p, parameter, cell ? p->of[w[k]] : anything);
        else if (role_of(p, parameter) == VALUE)
            learn(p, parameter, get(p, w[k]));
        if (cell)
            learn(p, w[k], role_of(p, parameter) == CELL ? p->of[parameter] : anything);
    }
    if (role_of(p, w[2]) == VALUE)
        learn(p, w[2], p->of[f->id]);
}

static values phi(pruner *p, const block *b, const uint32_t *w, uint32_t size)
{
    values y = {0};
    for (uint32_t k = 3; k + 1 < size; k += 2) {
        const block *from = block_named(p, w[k + 1]);
        values x = get(p, w[k]);
        if (!from->reached || !goes_to(p, from, b->label))
            continue;
        y.any |= x.any;
        for (uint32_t i = 0; i < x.count; i++)
            add(&y, x.v[i]);
    }
    return y;
}

/* Anything that is done to a variable in a way that is not understood. */
static void forget_cells(pruner *p, const uint32_t *w, uint32_t size)
{
    for (uint32_t k = 1; k < size; k++)
        if (role_of(p, w[k]) == CELL)
            learn(p, w[k], anything);
}

static void interpret(pruner *p, const block *b, uint32_t at)
{
    const uint32_t *w = p->code + at;
    uint32_t op = op_at(p, at), size = size_at(p, at), ignored;
    bool value = size > 2 && is_type(p, w[1]) && role_of(p, w[2]) == VALUE;
    if (op == OP_CALL) {
        call(p, w, size);
    } else if (op == OP_STORE) {
        if (role_of(p, w[1]) == CELL)
            learn(p, w[1], get(p, w[2]));
    } else if (op == OP_LOAD) {
        if (value)
            learn(p, w[2], role_of(p, w[3]) == CELL ? p->of[w[3]] : anything);
    } else if (op == OP_PHI) {
        if (value)
            learn(p, w[2], phi(p, b, w, size));
    } else if (op == OP_SELECT || fold(op, 1, 1, &ignored)) {
        if (value)
            learn(p, w[2], compute(p, op, w + 3, size - 3));
    } else if (op != OP_VARIABLE && op != OP_LABEL) {
        forget_cells(p, w, size);
        if (value)
            learn(p, w[2], anything);
    }
}

/* A branch by something that was never written can go anywhere. */
static bool release_undefined(pruner *p)
{
    p->changed = false;
    for (uint32_t i = 0; i < p->block_count; i++) {
        const block *b = &p->blocks[i];
        uint32_t op = op_at(p, b->terminator), id = p->code[b->terminator + 1];
        if (!b->reached || (op != OP_BRANCH_CONDITIONAL && op != OP_SWITCH))
            continue;
        values s = get(p, id);
        if (is_none(&s))
            learn(p, id, anything);
    }
    return p->changed;
}

static void find_reached(pruner *p)
{
    reach_function(p, &p->functions[p->function_of[p->entry] - 1]);
    do {
        do {
            p->changed = false;
            for (uint32_t i = 0; i < p->block_count; i++) {
                const block *b = &p->blocks[i];
                for (uint32_t at = b->begin; b->reached && at < b->terminator; at += size_at(p, at))
                    interpret(p, b, at);
                if (b->reached)
                    leave(p, b);
            }
        } while (p->changed);
    } while (release_undefined(p));
}

/* ---------------------------------------------------------------- what stays */

/* The only target of a conditional branch, or 0. The branch back to a loop's header stays: a loop must have one. */
static uint32_t decided(pruner *p, const block *b)
{
    const uint32_t *w = p->code + b->terminator;
    if (op_at(p, b->terminator) != OP_BRANCH_CONDITIONAL || block_named(p, w[2])->begin <= b->begin ||
        block_named(p, w[3])->begin <= b->begin)
        return 0;
    values s = get(p, w[1]);
    return has(&s, 1) == has(&s, 0) ? 0 : w[has(&s, 1) ? 2 : 3];
}

/* Blocks that a reached one names as the end of its construct, or as where its loop continues, stay without contents.
 */
static void mark_named(pruner *p)
{
    for (uint32_t i = 0; i < p->block_count; i++) {
        const block *b = &p->blocks[i];
        for (uint32_t at = b->begin; b->reached && at < b->terminator; at += size_at(p, at)) {
            uint32_t op = op_at(p, at);
            if (op == OP_LOOP_MERGE || (op == OP_SELECTION_MERGE && !decided(p, b)))
                block_named(p, p->code[at + 1])->merge = true;
            if (op == OP_LOOP_MERGE)
                block_named(p, p->code[at + 2])->header = b->label;
        }
    }
}

static void mark_gone(pruner *p)
{
    for (uint32_t i = 0; i < p->function_count; i++)
        for (uint32_t at = p->functions[i].begin; !p->functions[i].reached && at < p->functions[i].body;
             at += size_at(p, at))
            p->gone[p->code[at + 2]] = true; /* function and parameters */
    for (uint32_t i = 0; i < p->block_count; i++) {
        const block *b = &p->blocks[i];
        if (b->reached)
            continue;
        p->gone[b->label] = !b->merge && !b->header;
        for (uint32_t at = b->begin; at < b->end; at += size_at(p, at))
            if (size_at(p, at) > 2 && is_type(p, p->code[at + 1]))
                p->gone[p->code[at + 2]] = true;
    }
}

typedef struct output {
    uint32_t *code;
    size_t words;
} output;

static void put(output *o, uint32_t op, uint32_t size, const uint32_t *operands)
{
    o->code[o->words] = size << 16 | op;
    if (size > 1)
        memcpy(o->code + o->words + 1, operands, (size - 1) * sizeof *operands);
    o->words += size;
}

static void copy(output *o, const pruner *p, uint32_t at)
{
    put(o, op_at(p, at), size_at(p, at), p->code + at + 1);
}

/* Pairs of an instruction that are left: those of a phi whose edge is, those of a switch whose literal can occur. */
static void put_pairs(output *o, pruner *p, const block *b, uint32_t at)
{
    const uint32_t *w = p->code + at;
    bool is_phi = op_at(p, at) == OP_PHI;
    values s = is_phi ? anything : get(p, w[1]);
    size_t begin = o->words, size = 3;
    uint32_t *to = o->code + begin;
    to[1] = w[1];
    to[2] = w[2];
    for (uint32_t k = 3; k + 1 < size_at(p, at); k += 2) {
        const block *from = is_phi ? block_named(p, w[k + 1]) : NULL;
        if (is_phi ? !from->reached || !goes_to(p, from, b->label) : !has(&s, w[k]))
            continue;
        to[size++] = w[k];
        to[size++] = w[k + 1];
    }
    if (!is_phi && !default_taken(p, at))
        to[2] = to[4]; /* the first of those left is also where anything else goes */
    to[0] = (uint32_t)size << 16 | op_at(p, at);
    o->words += size;
}

static void put_block(output *o, pruner *p, const block *b)
{
    uint32_t only = b->reached ? decided(p, b) : 0;
    if (!b->reached) {
        if (!b->merge && !b->header)
            return;
        put(o, OP_LABEL, 2, &b->label);
        put(o, b->header ? OP_BRANCH : OP_UNREACHABLE, b->header ? 2 : 1, &b->header);
        return;
    }
    for (uint32_t at = b->begin; at < b->end; at += size_at(p, at)) {
        uint32_t op = op_at(p, at);
        if (op == OP_PHI || op == OP_SWITCH)
            put_pairs(o, p, b, at);
        else if (only && op == OP_BRANCH_CONDITIONAL)
            put(o, OP_BRANCH, 2, &only);
        else if (!only || op != OP_SELECTION_MERGE)
            copy(o, p, at);
    }
}

static void put_module(output *o, pruner *p)
{
    uint32_t functions = p->functions[0].begin;
    memcpy(o->code, p->code, HEADER * sizeof *o->code);
    o->words = HEADER;
    for (uint32_t at = HEADER; at < functions; at += size_at(p, at)) {
        uint32_t op = op_at(p, at), id = p->code[at + 1];
        if (!(op == OP_NAME || op == OP_DECORATE) || id >= p->bound || !p->gone[id])
            copy(o, p, at);
    }
    for (uint32_t i = 0; i < p->function_count; i++) {
        const function *f = &p->functions[i];
        if (!f->reached)
            continue;
        for (uint32_t at = f->begin; at < f->body; at += size_at(p, at))
            copy(o, p, at);
        for (uint32_t k = f->entry; k < p->block_count && p->blocks[k].function == i; k++)
            put_block(o, p, &p->blocks[k]);
        put(o, OP_FUNCTION_END, 1, NULL);
    }
}

/* ---------------------------------------------------------------- all of it */

static bool prepare(pruner *p, hk_arena *arena)
{
    uint32_t labels = 0, functions = 0;
    for (uint32_t at = HEADER; at < p->words && size_at(p, at) != 0; at += size_at(p, at)) {
        labels += op_at(p, at) == OP_LABEL;
        functions += op_at(p, at) == OP_FUNCTION;
    }
    p->role = hk_arena_alloc(arena, p->bound);
    p->gone = hk_arena_array(arena, p->bound, sizeof *p->gone);
    p->spec_id = hk_arena_array(arena, p->bound, sizeof *p->spec_id);
    p->block_of = hk_arena_array(arena, p->bound, sizeof *p->block_of);
    p->function_of = hk_arena_array(arena, p->bound, sizeof *p->function_of);
    p->of = hk_arena_array(arena, p->bound, sizeof *p->of);
    p->blocks = hk_arena_array(arena, labels + 1, sizeof *p->blocks);
    p->functions = hk_arena_array(arena, functions + 1, sizeof *p->functions);
    return p->role && p->gone && p->spec_id && p->block_of && p->function_of && p->of && p->blocks && p->functions;
}

uint32_t *hk_prune(hk_context *ctx, const hk_kernel *kernel, const uint32_t *spec, uint32_t spec_count, size_t *bytes)
{
    pruner p = {.code = kernel->spirv,
                .words = (uint32_t)(kernel->spirv_bytes / 4),
                .bound = kernel->spirv[3],
                .spec = spec,
                .spec_count = spec_count};
    output o = {.code = hk_alloc(ctx, kernel->spirv_bytes)}; /* it never grows */
    hk_arena *arena = hk_arena_create(ctx);
    if (!o.code || !arena || !prepare(&p, arena)) {
        hk_arena_destroy(&arena);
        hk_free(ctx, o.code);
        return NULL;
    }
    if (read_module(&p)) {
        find_reached(&p);
        mark_named(&p);
        mark_gone(&p);
        put_module(&o, &p);
        *bytes = o.words * sizeof *o.code;
    } else {
        memcpy(o.code, kernel->spirv, kernel->spirv_bytes);
        *bytes = kernel->spirv_bytes;
    }
    hk_arena_destroy(&arena);
    return o.code;
}

void hk_keep_loops(uint32_t *code, size_t bytes)
{
    enum { CONTROL = 3, DONT_UNROLL = 2 };
    for (size_t at = HEADER; at < bytes / sizeof *code && code[at] >> 16 != 0; at += code[at] >> 16)
        if ((code[at] & 0xffff) == OP_LOOP_MERGE && code[at] >> 16 == CONTROL + 1)
            code[at + CONTROL] = DONT_UNROLL;
}
