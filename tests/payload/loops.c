// The phases outside of VMX and SVM. Each has a twin of the same kind, `..._2`, for which nothing was tuned.
#include "payload.h"

// A register loop.
static u64 int_loop(u64 shorter, u64 *aux) {
    u64 count = 333333333 / shorter, n = count, x = 1, y = 3, z = 5;
    asm volatile("1: add %1,%0; xor %0,%1; lea 7(%0,%1,2),%2; rol $5,%1; dec %3; jnz 1b"
                 : "+r"(x), "+r"(y), "+r"(z), "+r"(n)::"cc");
    *aux = x ^ y ^ z;
    return 6 * count;
}

static u64 int_2(u64 shorter, u64 *aux) {
    u64 count = 200000000 / shorter;
    u32 n = count, x = 1, y, z = 0;
    asm volatile("1: imul $1664525,%0,%0; add $1013904223,%0; mov %0,%1; shr $16,%1; movzbl %b1,%1; add %1,%2; cmp %0,%2;"
                 "cmovb %0,%1; sub %1,%2; dec %3; jnz 1b"
                 : "+r"(x), "=&q"(y), "+r"(z), "+r"(n)::"cc");
    *aux = x ^ z;
    return 11 * count;
}

// Load, add and store over 16 MiB.
static u64 memsweep(u64 shorter, u64 *aux) {
    u64 passes = 24 / (shorter > 1 ? 8 : 1);
    for (u64 pass = 0; pass < passes; pass++) {
        u64 *at = AREA, n = AREA_BYTES / 8;
        asm volatile("1: mov (%0),%%rax; add %2,%%rax; mov %%rax,(%0); add $8,%0; dec %1; jnz 1b"
                     : "+r"(at), "+r"(n)
                     : "r"(pass)
                     : "rax", "memory", "cc");
    }
    *aux = AREA[5];
    return passes * 6 * (AREA_BYTES / 8);
}

static u64 memsweep_2(u64 shorter, u64 *aux) {
    u64 passes = 12 / (shorter > 1 ? 6 : 1), sum = 0;
    for (u64 pass = 0; pass < passes; pass++) {
        u64 n = AREA_BYTES / 4;
        asm volatile("1: movzbl -3(%2,%1,4),%%eax; add %%eax,-4(%2,%1,4); xor -4(%2,%1,4),%k0; sub $1,%1; jne 1b"
                     : "+r"(sum), "+r"(n)
                     : "r"(AREA)
                     : "rax", "memory", "cc");
    }
    *aux = sum;
    return passes * 5 * (AREA_BYTES / 4);
}

// A pointer chase through a random cycle (Sattolo's) of 256 Ki nodes of 64 bytes.
void make_cycle(void) {
    u64 count = AREA_BYTES / 64, random = 12345;
    u32 *order = (u32 *)(40ul << 20);
    for (u64 i = 0; i < count; i++)
        order[i] = i;
    for (u64 i = count - 1; i > 0; i--) {
        random = random * 6364136223846793005ul + 1442695040888963407ul;
        u64 j = (random >> 33) % i;
        u32 other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
    for (u64 i = 0; i < count; i++) {
        AREA[i * 8] = (u64)&AREA[(u64)order[i] * 8];
        AREA[i * 8 + 3] = order[i];
    }
}

static u64 chase(u64 shorter, u64 *aux) {
    u64 count = 8 * 1024 * 1024 / shorter, n = count, at = (u64)AREA;
    asm volatile("1: mov (%0),%0; dec %1; jnz 1b" : "+r"(at), "+r"(n)::"memory", "cc");
    *aux = at;
    return 3 * count;
}

static u64 chase_2(u64 shorter, u64 *aux) {
    u64 count = 4 * 1024 * 1024 / shorter, n = count, at = (u64)AREA, sum = 0;
    asm volatile("1: add 24(%0),%2; mov (%0),%0; sub $1,%1; jne 1b" : "+r"(at), "+r"(n), "+r"(sum)::"memory", "cc");
    *aux = sum;
    return 4 * count;
}

// String instructions over 16 MiB.
static u64 repmovs(u64 shorter, u64 *aux) {
    u64 passes = 6 / (shorter > 1 ? 3 : 1);
    for (u64 pass = 0; pass < passes; pass++) {
        u64 from = AREA_BYTES, to = AREA_BYTES + (32ul << 20), n = AREA_BYTES / 8;
        asm volatile("cld; rep movsq" : "+S"(from), "+D"(to), "+c"(n)::"memory");
    }
    *aux = 0;
    return passes * AREA_BYTES;
}

static u64 repmovs_2(u64 shorter, u64 *aux) {
    u64 passes = 6 / (shorter > 1 ? 3 : 1);
    for (u64 pass = 0; pass < passes; pass++) {
        u64 from = AREA_BYTES, to = AREA_BYTES + (32ul << 20), n = AREA_BYTES / 8;
        asm volatile("cld; rep movsl" : "+S"(from), "+D"(to), "+c"(n)::"memory");
        n = AREA_BYTES / 8;
        asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(pass) : "memory");
    }
    *aux = 0;
    return passes * AREA_BYTES;
}

// Unpredictable branches: CRC32 bit by bit.
static u64 crcbits(u64 shorter, u64 *aux) {
    u64 passes = 8 / (shorter > 1 ? 4 : 1), taken = 0;
    u32 crc = ~0u;
    for (u64 pass = 0; pass < passes; pass++) {
        u8 *at = (u8 *)AREA;
        u64 n = 1 << 20;
        asm volatile("1: movzbl (%1),%%eax; xor %%eax,%0; inc %1; mov $8,%%edx; 2: shr $1,%0; jnc 3f;"
                     "xor $0xEDB88320,%0; inc %3; 3: dec %%edx; jnz 2b; dec %2; jnz 1b"
                     : "+r"(crc), "+r"(at), "+r"(n), "+r"(taken)::"eax", "edx", "memory", "cc");
    }
    *aux = crc;
    return passes * ((6 + 8 * 4) << 20) + taken * 2;
}

static u64 crcbits_2(u64 shorter, u64 *aux) {
    u64 count = 30000000 / shorter, n = count, x = 88172645463325252ul, low = 0, high = 0;
    asm volatile("1: mov %0,%%rax; shl $13,%%rax; xor %%rax,%0; mov %0,%%rax; shr $7,%%rax; xor %%rax,%0; test $0x40,%b0;"
                 "je 2f; add $1,%1; bt $11,%0; jc 3f; 2: add %0,%2; 3: sub $1,%3; jne 1b"
                 : "+q"(x), "+r"(low), "+r"(high), "+r"(n)::"rax", "memory", "cc");
    *aux = x ^ low ^ high;
    return 10 * count + 3 * low;
}

// Compiled C.
static u32 numbers[1 << 16];
static u64 shellsort(u64 shorter, u64 *aux) {
    u64 passes = 8 / (shorter > 1 ? 4 : 1), random = 99, sum = 0, count = sizeof numbers / sizeof *numbers;
    for (u64 pass = 0; pass < passes; pass++) {
        for (u64 i = 0; i < count; i++) {
            random = random * 6364136223846793005ul + 1442695040888963407ul;
            numbers[i] = random >> 33;
        }
        for (u32 gap = count / 2; gap; gap /= 2)
            for (u32 i = gap; i < count; i++) {
                u32 number = numbers[i], j = i;
                for (; j >= gap && numbers[j - gap] > number; j -= gap)
                    numbers[j] = numbers[j - gap];
                numbers[j] = number;
            }
        sum += numbers[100] + numbers[60000];
    }
    *aux = sum;
    return passes;
}

// Floating point: scalar doubles; packed singles and conversions.
static u64 sse2(u64 shorter, u64 *aux) {
    u64 count = 50000000 / shorter, n = count;
    asm volatile("movq %2,%%xmm0; movq %3,%%xmm1; movq %4,%%xmm2; 1: mulsd %%xmm1,%%xmm0; addsd %%xmm2,%%xmm0;"
                 "dec %1; jnz 1b; movq %%xmm0,%0"
                 : "=r"(*aux), "+r"(n)
                 : "r"(0x3ff0000000000000), "r"(0x3ff000001ad7f29b), "r"(0x3fe0000000000000)
                 : "cc");
    return 4 * count;
}

static u64 sse2_2(u64 shorter, u64 *aux) {
    u64 count = 10000000 / shorter, n = count, sum = 0;
    asm volatile("movq %3,%%xmm0; movlhps %%xmm0,%%xmm0; movaps %%xmm0,%%xmm1; cvtsi2sd %1,%%xmm2; 1: mulps %%xmm1,%%xmm0;"
                 "addps %%xmm1,%%xmm0; cvttsd2si %%xmm2,%%rax; add %%rax,%2; subsd %%xmm1,%%xmm2; dec %1; jnz 1b; movq %%xmm0,%0"
                 : "=r"(*aux), "+r"(n), "+r"(sum)
                 : "r"(0x3f0000003f000000)
                 : "rax", "cc");
    *aux ^= sum;
    return 7 * count;
}

// Exceptions and software interrupts through the IDT and back.
static u64 exc_ud2(u64 shorter, u64 *aux) {
    u64 count = 2000000 / shorter, n = count;
    asm volatile("1: ud2; dec %0; jnz 1b" : "+r"(n)::"memory", "cc");
    *aux = n;
    return count;
}

static u64 exc_2(u64 shorter, u64 *aux) {
    u64 count = 2000000 / shorter, n = count;
    asm volatile("1: int $0x30; dec %0; jnz 1b" : "+r"(n)::"memory", "cc");
    *aux = n;
    return count;
}

// Ports.
static u64 out80(u64 shorter, u64 *aux) {
    u64 count = 2000000 / shorter, n = count;
    asm volatile("1: outb %%al,$0x80; dec %0; jnz 1b" : "+r"(n)::"cc");
    *aux = n;
    return count;
}

static u64 out80_2(u64 shorter, u64 *aux) {
    u64 count = 2000000 / shorter, n = count;
    asm volatile("mov $0x80,%%edx; 1: outl %%eax,%%dx; inb %%dx,%%al; sub $1,%0; jne 1b" : "+r"(n)::"rax", "rdx", "cc");
    *aux = n;
    return 2 * count;
}

// Invalidations, each followed by four touches.
static u64 cr3reload(u64 shorter, u64 *aux) {
    u64 count = 500000 / shorter, n = count;
    asm volatile("1: mov %1,%%cr3; mov 0x1000000,%%rax; mov 0x1100000,%%rax; mov 0x1200000,%%rax; mov 0x1300000,%%rax;"
                 "dec %0; jnz 1b"
                 : "+r"(n)
                 : "r"(read_cr3())
                 : "rax", "memory", "cc");
    *aux = n;
    return count;
}

static u64 cr3reload_2(u64 shorter, u64 *aux) {
    u64 count = 500000 / shorter, n = count;
    asm volatile("1: invlpg 0x1000000; invlpg 0x1100000; mov 0x1000000,%%rax; mov 0x1100000,%%rax; mov 0x1200000,%%rax;"
                 "mov 0x1300000,%%rax; dec %0; jnz 1b"
                 : "+r"(n)::"rax", "memory", "cc");
    *aux = n;
    return count;
}

// Calls: through a register; recursive C.
static u64 callret(u64 shorter, u64 *aux) {
    u64 count = 20000000 / shorter, n = count, sum = 0;
    asm volatile("lea 2f(%%rip),%%rax; jmp 1f; 2: inc %1; ret; 1: call *%%rax; dec %0; jnz 1b"
                 : "+r"(n), "+r"(sum)::"rax", "memory", "cc");
    *aux = sum;
    return 5 * count;
}

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static u64 fibonacci(u64 n, u64 *calls) {
    ++*calls;
    return n < 2 ? n : fibonacci(n - 1, calls) + fibonacci(n - 2, calls);
}

static u64 callret_2(u64 shorter, u64 *aux) {
    u64 calls = 0;
    *aux = fibonacci(shorter > 1 ? 27 : 32, &calls);
    return calls;
}

const struct phase loops[] = {
    {"int", 0, int_loop},
    {"int_2", 0, int_2},
    {"memsweep", 0, memsweep},
    {"memsweep_2", 0, memsweep_2},
    {"chase", make_cycle, chase},
    {"chase_2", make_cycle, chase_2},
    {"repmovs_bytes", 0, repmovs},
    {"repmovs_bytes_2", 0, repmovs_2},
    {"crcbits", make_cycle, crcbits},
    {"crcbits_2", 0, crcbits_2},
    {"shellsort", 0, shellsort},
    {"sse2", 0, sse2},
    {"sse2_2", 0, sse2_2},
    {"exc_ud2", 0, exc_ud2},
    {"exc_2", 0, exc_2},
    {"out80", 0, out80},
    {"out80_2", 0, out80_2},
    {"cr3reload", 0, cr3reload},
    {"cr3reload_2", 0, cr3reload_2},
    {"callret", 0, callret},
    {"callret_2", 0, callret_2},
    {0, 0, 0},
};
