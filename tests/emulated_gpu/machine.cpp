// Runs a kernel: the threads of a block are fibers on one CPU thread, and the blocks run one after
// another. A thread runs until it waits at a barrier of its block or at a collective operation of
// its warp, or until it ends. So a kernel that never waits is a plain loop.
//
// Undefined behaviour of a GPU is an error here, which ends the launch by a jump to emulated_run.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "shim.h"

uint3 emulated_thread, emulated_block;
dim3 emulated_block_size, emulated_grid_size;

namespace {

const int WARP = 32, MOST_THREADS = 1024, MOST_COPIES = 128;
const size_t STACK = 256 << 10, PAGE = 4096, GAP = 1 << 20;
const unsigned POISON = 0x7FFDBEEF;      // as float and double NaN, as int and long long huge
const unsigned char GUARD = 0xFF;        // as float and double NaN

// --- fibers --------------------------------------------------------------------------------------

struct Fiber {
    char* stack;
#ifdef __x86_64__
    void* top;
#else
    ucontext_t context;
#endif
};

Fiber scheduler, fibers[MOST_THREADS];
Fiber* idle[MOST_THREADS];               // the fibers without a thread
int idle_count, made;

#ifdef __x86_64__
// swapcontext asks the system to save the signals' mask, every time; these are the registers that
// a function must keep.
extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.type emulated_switch, @function
emulated_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

void switch_fiber(Fiber& from, Fiber& to) { emulated_switch(&from.top, to.top); }

void begin_at(Fiber& fiber, void (*function)()) {
    void** top = (void**)(fiber.stack + STACK - 64);
    *top = (void*)function;                               // where the first "ret" goes
    fiber.top = top - 6;
}
#else
void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

void begin_at(Fiber& fiber, void (*function)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    makecontext(&fiber.context, function, 0);
}
#endif

// --- the launch and its threads ------------------------------------------------------------------

enum State { NOT_STARTED, READY, AT_BARRIER, AT_COLLECTIVE, EXITED };

struct Thread {
    State state;
    uint3 index;
    Fiber* fiber;
    const char* file;                    // where it waits
    int line;
    int kind, predicate;                 // of a barrier
    Operation operation;                 // of a collective
    void* payload;
    unsigned mask;
    int copies, groups;                  // asynchronous copies that are not done yet
};

struct Copy {
    void* to;
    const void* from;
    int group;
};

struct Launch {
    void (*entry)(void**);
    void** arguments;
    unsigned grid[3], block[3];
    char* shared;
    long shared_bytes;
    int reversed, seconds;
};

// The error, from which emulator.py makes a message.
struct Report {
    char text[400], file[200];
    int line, in_thread;
    unsigned block[3], thread[3];
    int signal, writing;
    uintptr_t address, instruction;
};

Launch launch;
Report report;
Thread threads[MOST_THREADS];
Copy copies[MOST_THREADS][MOST_COPIES];
Thread* current;
int thread_count, exited, barrier_result;
sigjmp_buf escape;
pthread_t runner;
volatile int running;

void report_location(const Thread* t) {
    report.in_thread = t != nullptr;
    memcpy(report.block, &emulated_block, sizeof report.block);
    if (t) memcpy(report.thread, &t->index, sizeof report.thread);
}

[[noreturn]] void fail(const Thread* t, const char* file, int line, const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(report.text, sizeof report.text, format, values);
    va_end(values);
    snprintf(report.file, sizeof report.file, "%s", file ? file : "");
    report.line = line;
    report_location(t);
    siglongjmp(escape, 1);
}

// "line 12 of dense.cu", in one of a few buffers.
const char* place(const Thread* t) {
    static char text[4][240];
    static int next;
    char* here = text[next++ % 4];
    snprintf(here, sizeof text[0], "line %d of %s", t->line, t->file);
    return here;
}

bool same_place(const Thread* a, const Thread* b) {
    return a->line == b->line && (a->file == b->file || strcmp(a->file, b->file) == 0);
}

const char* name(const uint3& i) {
    static char text[4][48];
    static int next;
    char* here = text[next++ % 4];
    snprintf(here, sizeof text[0], "(%u, %u, %u)", i.x, i.y, i.z);
    return here;
}

void wait_in(State state, const char* file, int line) {
    current->state = state, current->file = file, current->line = line;
    switch_fiber(*current->fiber, scheduler);
}

// A fiber runs one thread after another.
void run_threads() {
    while (true) {
        launch.entry(launch.arguments);
        current->state = EXITED;
        exited++;
        idle[idle_count++] = current->fiber;
        switch_fiber(*current->fiber, scheduler);
    }
}

void new_fiber() {
    Fiber& fiber = fibers[made++];
    if (!fiber.stack) {
        fiber.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fiber.stack == MAP_FAILED) __builtin_abort();
        mprotect(fiber.stack, PAGE, PROT_NONE);            // an array too large for the stack
    }
    begin_at(fiber, run_threads);
    idle[idle_count++] = &fiber;
}

void resume(Thread* t) {
    if (t->state == NOT_STARTED) {
        t->copies = t->groups = 0;
        if (idle_count == 0) new_fiber();
        t->fiber = idle[--idle_count];
    }
    current = t;
    emulated_thread = t->index;
    t->state = READY;
    switch_fiber(scheduler, *t->fiber);
    current = nullptr;
}

// --- warps ---------------------------------------------------------------------------------------

const char* state_of(int warp, int lane) {
    static char text[300];
    int i = warp * WARP + lane;
    if (i >= thread_count) return "does not exist in this block";
    Thread* t = &threads[i];
    if (t->state == EXITED) return "has exited";
    if (t->state == AT_BARRIER)
        snprintf(text, sizeof text, "waits at the barrier in %s", place(t));
    else
        snprintf(text, sizeof text, "waits with mask %#x in %s", t->mask, place(t));
    return text;
}

bool same_collective(const Thread* a, const Thread* b) {
    return b->state == AT_COLLECTIVE && a->mask == b->mask && a->operation == b->operation &&
           same_place(a, b);
}

// No lane of the warp can continue, and one waits for another: reports for which.
[[noreturn]] void fail_collective(int warp, Thread* t) {
    for (int lane = 0; lane < WARP; lane++) {
        int i = warp * WARP + lane;
        if (t->mask >> lane & 1 && (i >= thread_count || !same_collective(t, &threads[i])))
            fail(t, t->file, t->line, "a collective operation of a warp with mask %#x waits for "
                 "lane %d, which %s", t->mask, lane, state_of(warp, lane));
    }
    __builtin_abort();
}

// Runs the lanes of a warp until all of them wait for the block or have exited.
void run_warp(int warp) {
    int first = warp * WARP, count = min(WARP, thread_count - first);
    bool moved = true;
    while (moved) {
        moved = false;
        for (int k = 0; k < count; k++) {
            Thread* t = &threads[first + (launch.reversed ? count - 1 - k : k)];
            if (t->state <= READY) resume(t), moved = true;
        }
    }
    for (int k = 0; k < count; k++)
        if (threads[first + k].state == AT_COLLECTIVE) fail_collective(warp, &threads[first + k]);
}

// --- blocks --------------------------------------------------------------------------------------

// All threads wait or have exited: releases them if they all wait at the same barrier.
void release_barrier() {
    Thread* waiting = nullptr;
    for (int i = 0; i < thread_count && !waiting; i++)
        if (threads[i].state == AT_BARRIER) waiting = &threads[i];
    int votes = 0;
    for (int i = 0; i < thread_count; i++) {
        Thread* t = &threads[i];
        if (t->state == EXITED)
            fail(waiting, waiting->file, waiting->line, "__syncthreads() is not reached by all "
                 "threads of the block: thread %s has exited", name(t->index));
        if (!same_place(t, waiting))
            fail(waiting, waiting->file, waiting->line, "__syncthreads() is not reached by all "
                 "threads of the block: thread %s waits at %s", name(t->index), place(t));
        votes += t->predicate != 0;
    }
    barrier_result = waiting->kind == OR ? votes > 0 : waiting->kind == AND ? votes == thread_count
                                                                            : votes;
    for (int i = 0; i < thread_count; i++) threads[i].state = READY;
}

void run_block() {
    for (long i = 0; i + 4 <= launch.shared_bytes; i += 4) *(unsigned*)(launch.shared + i) = POISON;
    for (int i = 0; i < thread_count; i++) threads[i].state = NOT_STARTED;
    exited = 0;
    int warps = (thread_count + WARP - 1) / WARP;
    while (true) {
        for (int w = 0; w < warps; w++) run_warp(launch.reversed ? warps - 1 - w : w);
        if (exited == thread_count) return;
        release_barrier();
    }
}

void run_grid() {
    const unsigned *g = launch.grid, *b = launch.block;
    emulated_grid_size = dim3(g[0], g[1], g[2]);
    emulated_block_size = dim3(b[0], b[1], b[2]);
    thread_count = b[0] * b[1] * b[2];
    for (unsigned i = 0; i < (unsigned)thread_count; i++)
        threads[i].index = {i % b[0], i / b[0] % b[1], i / b[0] / b[1]};
    unsigned long long blocks = 1ull * g[0] * g[1] * g[2];
    for (unsigned long long k = 0; k < blocks; k++) {
        unsigned long long i = launch.reversed ? blocks - 1 - k : k;
        emulated_block = {(unsigned)(i % g[0]), (unsigned)(i / g[0] % g[1]),
                          (unsigned)(i / g[0] / g[1])};
        run_block();
    }
}

// --- signals: accesses outside every array, divisions by zero, endless loops ---------------------

const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGVTALRM};
const int SIGNAL_COUNT = sizeof SIGNALS / sizeof *SIGNALS;
struct sigaction previous[SIGNAL_COUNT];

void on_signal(int number, siginfo_t* info, void* context) {
    if (!running || !pthread_equal(pthread_self(), runner)) {
        // Not ours: gone back from here, it comes again and meets the handler from before.
        for (int i = 0; i < SIGNAL_COUNT; i++)
            if (SIGNALS[i] == number) sigaction(number, &previous[i], nullptr);
        return;
    }
    report.signal = number;
    report.address = (uintptr_t)info->si_addr;
#ifdef __x86_64__
    auto registers = ((ucontext_t*)context)->uc_mcontext.gregs;
    report.instruction = registers[REG_RIP];
    report.writing = registers[REG_ERR] >> 1 & 1;
#else
    (void)context;
    report.writing = -1;
#endif
    report_location(current);
    siglongjmp(escape, 1);
}

void catch_signals() {
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &action, &previous[i]);
}

void restore_signals() {
    for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &previous[i], nullptr);
}

void set_timer(int seconds) {
    struct itimerval timer = {};
    timer.it_value.tv_sec = seconds;
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
}

}  // namespace

// --- what kernels call ---------------------------------------------------------------------------

int emulated_barrier(int kind, int predicate, const char* file, int line) {
    current->kind = kind, current->predicate = predicate;
    wait_in(AT_BARRIER, file, line);
    return barrier_result;
}

int emulated_lane() { return (current - threads) % WARP; }

void emulated_fail(const char* text, const char* file, int line) {
    fail(current, file, line, "%s", text);
}

void emulated_collective(Operation operation, void* payload, unsigned mask, const char* file,
                         int line) {
    int index = current - threads, lane = index % WARP, first = index - lane;
    Thread* own = current;
    own->operation = operation, own->payload = payload, own->mask = mask;
    own->file = file, own->line = line;
    if (!(mask >> lane & 1))
        fail(own, file, line, "lane %d calls a collective operation whose mask %#x does not name "
             "it", lane, mask);
    own->state = AT_COLLECTIVE;
    void* payloads[WARP] = {};
    for (int i = 0; i < WARP; i++) {
        int k = launch.reversed ? i : WARP - 1 - i;       // first those that come last
        if (!(mask >> k & 1)) continue;
        if (first + k >= thread_count || !same_collective(own, &threads[first + k])) {
            switch_fiber(*own->fiber, scheduler);
            return;
        }
        payloads[k] = threads[first + k].payload;
    }
    operation(payloads, mask);                            // the last lane is here
    for (int k = 0; k < WARP; k++)
        if (mask >> k & 1) threads[first + k].state = READY;
}

// A GPU copies at any time between the call and the wait. Here it is at the call, or in reverse
// order at the wait.
void emulated_copy(void* to, const void* from, const char* file, int line) {
    if (((uintptr_t)to | (uintptr_t)from) % 16)
        fail(current, file, line, "an asynchronous copy between addresses that are not multiples "
             "of 16");
    if (!launch.reversed) {
        memcpy(to, from, 16);
        return;
    }
    if (current->copies == MOST_COPIES)
        fail(current, file, line, "more than %d asynchronous copies without a wait", MOST_COPIES);
    copies[current - threads][current->copies++] = {to, from, current->groups};
}

void emulated_copy_commit() { current->groups++; }

// Executes all but the last ``left`` groups.
void emulated_copy_wait(int left) {
    Copy* own = copies[current - threads];
    int kept = 0;
    for (int i = 0; i < current->copies; i++)
        if (own[i].group < current->groups - left)
            memcpy(own[i].to, own[i].from, 16);
        else
            own[kept++] = own[i];
    current->copies = kept;
}

// --- what g++ has the sanitised code call --------------------------------------------------------

namespace {
struct SourceLocation {
    const char* file;
    unsigned line, column;
};
struct TypeName {
    unsigned short kind, info;
    char text[];
};
struct OutOfBounds {
    SourceLocation place;
    TypeName *array, *index;
};
struct Misaligned {
    SourceLocation place;
    TypeName* type;
    unsigned char alignment, access;
};
}  // namespace

extern "C" {
void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, long index) {
    // The index is a register's content: of a narrower type, only its lower bits are the number.
    if (data->index->info >> 1 <= 5) index = data->index->info & 1 ? (int)index : (unsigned)index;
    fail(current, data->place.file, data->place.line, "index %ld is outside an array of type %s",
         index, data->array->text);
}
void __ubsan_handle_divrem_overflow_abort(SourceLocation* data, uintptr_t, uintptr_t) {
    fail(current, data->file, data->line, "an integer division by zero (or of the least number by "
         "-1)");
}
void __ubsan_handle_type_mismatch_v1_abort(Misaligned* data, uintptr_t address) {
    fail(current, data->place.file, data->place.line, "an access to a %s at an address that is not "
         "a multiple of %d (%#lx)", data->type->text, 1 << data->alignment, address);
}
}

// --- what emulator.py calls ----------------------------------------------------------------------

// An array's bytes, and their copy between guard pages while a kernel runs.
struct Region {
    char* bytes;
    long size;
    int written;
    char *placed, *page;
    long pages;                          // their bytes
    long damage;                         // the first guard byte written to, counted from the start
    int damaged;
};

extern "C" {

// Places the arrays; those bytes between them and the pages that are out of bounds are guards.
// ``in_front`` puts the arrays at the beginning of their pages, so that reading in front of one is
// caught at once, else at the end. The address keeps its remainder by 16. 0, or no memory.
char* emulated_place(Region* regions, int count, int in_front, long* total) {
    *total = GAP;
    for (int i = 0; i < count; i++) {
        Region& r = regions[i];
        r.pages = (r.size + 32 + PAGE - 1) / PAGE * PAGE;
        *total += r.pages + GAP;
    }
    char* base = (char*)mmap(nullptr, *total, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    char* next = base + GAP;
    for (int i = 0; i < count; i++) {
        Region& r = regions[i];
        uintptr_t rest = (uintptr_t)r.bytes % 16;
        r.page = next;
        r.placed = in_front ? next + rest : next + (r.pages - r.size - rest) / 16 * 16 + rest;
        if (mprotect(next, r.pages, PROT_READ | PROT_WRITE)) return nullptr;
        memset(r.page, GUARD, r.placed - r.page);
        memcpy(r.placed, r.bytes, r.size);
        memset(r.placed + r.size, GUARD, r.page + r.pages - r.placed - r.size);
        next += r.pages + GAP;
    }
    return base;
}

// Checks the guards; returns 0 if they are unchanged, and then copies the arrays back.
int emulated_collect(Region* regions, int count) {
    int damaged = 0;
    for (int i = 0; i < count; i++) {
        Region& r = regions[i];
        r.damaged = 0;
        for (char* p = r.page; p < r.page + r.pages && !r.damaged; p++) {
            if (p == r.placed) p += r.size;
            if (p < r.page + r.pages && (unsigned char)*p != GUARD)
                r.damaged = 1, r.damage = p - r.placed;
        }
        damaged |= r.damaged;
    }
    for (int i = 0; i < count && !damaged; i++)
        if (regions[i].written) memcpy(regions[i].bytes, regions[i].placed, regions[i].size);
    return damaged;
}

void emulated_remove(char* base, long total) { munmap(base, total); }

// Runs a kernel; 0, or 1 and a report.
int emulated_run(const Launch* wanted, Report* result) {
    static char signal_stack[64 << 10];
    stack_t own = {}, before;
    own.ss_sp = signal_stack, own.ss_size = sizeof signal_stack;
    launch = *wanted;
    memset(&report, 0, sizeof report);
    runner = pthread_self();
    sigaltstack(&own, &before);
    catch_signals();
    int failed = sigsetjmp(escape, 1);
    if (!failed) {
        running = 1;
        set_timer(launch.seconds);
        run_grid();
    }
    set_timer(0);
    running = 0;
    restore_signals();
    sigaltstack(&before, nullptr);
    if (failed) idle_count = made = 0;                    // their stacks hold abandoned threads
    current = nullptr;
    *result = report;
    return failed;
}

}
