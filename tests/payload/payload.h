// What the parts of the payload share.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long u64;

static inline void outb(u16 port, u8 value) { asm volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { asm volatile("outl %0,%1" ::"a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) {
    u8 value;
    asm volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u64 rdmsr(u32 msr) {
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}
static inline void wrmsr(u32 msr, u64 value) {
    asm volatile("wrmsr" ::"a"((u32)value), "d"((u32)(value >> 32)), "c"(msr));
}
static inline u64 read_cr0(void) {
    u64 value;
    asm volatile("mov %%cr0,%0" : "=r"(value));
    return value;
}
static inline u64 read_cr3(void) {
    u64 value;
    asm volatile("mov %%cr3,%0" : "=r"(value));
    return value;
}
static inline u64 read_cr4(void) {
    u64 value;
    asm volatile("mov %%cr4,%0" : "=r"(value));
    return value;
}

// 16 MiB at 16 MiB, mapped by 4 KiB pages as all from 16 to 80 MiB.
#define AREA ((u64 *)(16ul << 20))
#define AREA_BYTES (16ul << 20)

// A phase: `prepare` (or 0) is not timed; `run` returns how much it did, and leaves what it computed in *aux; `shorter` is 1,
// or about 10 for a quick run.
struct phase {
    const char *name;
    void (*prepare)(void);
    u64 (*run)(u64 shorter, u64 *aux);
};

// Prints BEGIN, runs, prints END, if the command line asks for the phase.
void run_phase(const struct phase *phase, u64 shorter);
void print(const char *text);
void print_hex(u64 value);
void *memset(void *to, int byte, u64 count);

void make_cycle(void);
extern const struct phase loops[];
void vmx_phases(u64 shorter);
void svm_phases(u64 shorter, int nested_paging);

// boot.asm
extern u64 gdt[], guest_arg, exits_left, expected_exit;
extern u8 tss[], guest_stack_top[];
void isr_skip_two(void), isr_return(void), isr_bad(void), guest_cpuid(void), guest_io(void), guest_chase(void);
u64 vmx_run(u64 exits), svm_run(u64 exits, u64 vmcb);
extern struct gate {
    u16 low, selector;
    u8 ist, type;
    u16 middle;
    u32 high, zero;
} idt[256];
