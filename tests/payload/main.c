// The speed payload: a Multiboot 1 kernel that prints "BEGIN phase" and "END phase count=N tsc=T aux=X" on COM1 around each
// phase. `aux` is what the phase computed: equal on every machine. Command line: `quick` for phases about ten times shorter,
// `only=NAME,NAME` for some of them.
#include "payload.h"

struct gate idt[256] __attribute__((aligned(16)));

struct multiboot {
    u32 flags, low, high, device, command_line;
};

static const char *command = "";

static void put(char c) {
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f8, c);
}

void print(const char *text) {
    while (*text)
        put(*text++);
}

void print_hex(u64 value) {
    for (int shift = 60; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

static void print_decimal(u64 value) {
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = '0' + value % 10;
        value /= 10;
    } while (value);
    print(digits + at);
}

void *memset(void *to, int byte, u64 count) {
    for (u8 *p = to; count--;)
        *p++ = byte;
    return to;
}

static u64 tsc(void) {
    u32 low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (u64)high << 32 | low;
}

// Where `text` goes on behind `word`, if it begins with it.
static const char *behind(const char *text, const char *word) {
    while (*word && *text == *word)
        text++, word++;
    return *word ? 0 : text;
}

static const char *find(const char *text, const char *word) {
    for (; *text; text++) {
        const char *rest = behind(text, word);
        if (rest)
            return rest;
    }
    return 0;
}

static int wanted(const char *name) {
    const char *list = find(command, "only=");
    if (!list)
        return 1;
    while (1) {
        const char *rest = behind(list, name);
        if (rest && (!*rest || *rest == ',' || *rest == ' '))
            return 1;
        while (*list && *list != ',' && *list != ' ')
            list++;
        if (*list++ != ',')
            return 0;
    }
}

void run_phase(const struct phase *phase, u64 shorter) {
    if (!wanted(phase->name))
        return;
    if (phase->prepare)
        phase->prepare();
    print("BEGIN ");
    print(phase->name);
    print("\r\n");
    u64 aux = 0, start = tsc(), count = phase->run(shorter, &aux), ticks = tsc() - start;
    print("END ");
    print(phase->name);
    print(" count=");
    print_decimal(count);
    print(" tsc=");
    print_decimal(ticks);
    print(" aux=");
    print_hex(aux);
    print("\r\n");
}

// boot.asm comes here with what the stack of an exception holds.
void fault(u64 a, u64 b, u64 c) {
    u64 cr2;
    asm("mov %%cr2,%0" : "=r"(cr2));
    print("FAULT ");
    print_hex(a);
    put(' ');
    print_hex(b);
    put(' ');
    print_hex(c);
    print(" cr2=");
    print_hex(cr2);
    print("\r\n");
    outl(0xf4, 1);
    while (1)
        asm volatile("cli; hlt");
}

static void set_gate(int vector, void (*handler)(void)) {
    u64 at = (u64)handler;
    idt[vector] = (struct gate){at, 8, 0, 0x8e, at >> 16, at >> 32, 0};
}

static u32 cpuid(u32 leaf, char which) {
    u32 a = leaf, b, c = 0, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return which == 'c' ? c : d;
}

void main(const struct multiboot *info) {
    static const u8 uart[][2] = {{1, 0}, {3, 0x80}, {0, 1}, {1, 0}, {3, 3}, {2, 0}, {4, 3}};
    for (u64 i = 0; i < sizeof uart / sizeof *uart; i++)
        outb(0x3f8 + uart[i][0], uart[i][1]);
    for (int vector = 0; vector < 32; vector++)
        set_gate(vector, isr_bad);
    set_gate(6, isr_skip_two);
    set_gate(0x30, isr_return);
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (u64)idt};
    asm volatile("lidt %0" ::"m"(idtr));
    if (info->flags & 4)
        command = (const char *)(u64)info->command_line;
    u64 shorter = find(command, "quick") ? 10 : 1;
    print("\r\nPAYLOAD ");
    print(command);
    print("\r\n");
    for (const struct phase *phase = loops; phase->name; phase++)
        run_phase(phase, shorter);
    if (cpuid(1, 'c') & 1 << 5)
        vmx_phases(shorter);
    if (cpuid(0x80000001, 'c') & 1 << 2)
        svm_phases(shorter, cpuid(0x8000000a, 'd') & 1);
    print("BENCH DONE\r\n");
    outl(0xf4, 0);
    for (const char *port = "Shutdown"; *port; port++)
        outb(0x8900, *port);
}
