// The phases under VMX and SVM: a minimal hypervisor whose guest does one thing.
#include "payload.h"

static u8 page[8][4096] __attribute__((aligned(4096)));
static u64 nested4[512] __attribute__((aligned(4096))), nested3[512] __attribute__((aligned(4096)));
static u64 nested2[512] __attribute__((aligned(4096)));
static u8 iopm[12288] __attribute__((aligned(4096))), msrpm[8192] __attribute__((aligned(4096)));

#define CHASE_HOPS (4ul * 1024 * 1024) // as in boot.asm
#define ROUNDS(shorter) (200000ul / ((shorter) > 1 ? 4 : 1))
#define VMX_EXIT_CPUID 10
#define VMX_EXIT_IO 30
#define SVM_EXIT_CPUID 0x72
#define SVM_EXIT_IO 0x7b

// The first GiB onto itself, in 2 MiB pages; `leaf` is what the entries hold beside the address.
static void nested_tables(u64 leaf) {
    nested4[0] = (u64)nested3 | 7;
    nested3[0] = (u64)nested2 | 7;
    for (u64 i = 0; i < 512; i++)
        nested2[i] = i << 21 | leaf;
}

static void vmwrite(u64 field, u64 value) {
    u8 failed;
    asm volatile("vmwrite %2,%1; setna %0" : "=q"(failed) : "r"(field), "r"(value) : "cc");
    if (failed) {
        print("VMWRITE fails: ");
        print_hex(field);
        print("\r\n");
    }
}

static u64 adjusted(u32 msr, u64 wanted) {
    u64 allowed = rdmsr(msr);
    return (wanted | (u32)allowed) & allowed >> 32;
}

static void vmcs_setup(u8 *vmcs, int ept, void (*rip)(void)) {
    static const u16 zero[] = {0x4004, 0x4006, 0x4008, 0x400a, 0x400e, 0x4010, 0x4014, 0x4016, 0x6000, 0x6002, 0x6004,
                               0x6006, 0x6c06, 0x6c08, 0x4c00, 0x6c10, 0x6c12, 0x482a, 0x6824, 0x6826, 0x4824, 0x4826,
                               0x6822, 0x2802};
    u64 at = (u64)vmcs;
    *(u32 *)vmcs = rdmsr(0x480) & 0x7fffffff;
    asm volatile("vmclear %0; vmptrld %0" ::"m"(at) : "cc", "memory");
    for (u64 i = 0; i < sizeof zero / sizeof *zero; i++)
        vmwrite(zero[i], 0);
    int true_controls = rdmsr(0x480) >> 55 & 1 ? 0xc : 0;
    vmwrite(0x4000, adjusted(0x481 + true_controls, 0));
    // Unconditional I/O exiting; secondary controls.
    vmwrite(0x4002, adjusted(0x482 + true_controls, 1 << 24 | (ept ? 0x80000000 : 0)));
    vmwrite(0x400c, adjusted(0x483 + true_controls, 0x200));
    vmwrite(0x4012, adjusted(0x484 + true_controls, 0x200));
    vmwrite(0x2800, ~0ul);
    if (ept) {
        vmwrite(0x401e, adjusted(0x48b, 2));
        nested_tables(0xb7);
        vmwrite(0x201a, (u64)nested4 | 0x1e);
    }
    static const u16 host_selectors[] = {0x10, 8, 0x10, 0x10, 0x10, 0x10, 0x18};
    for (int i = 0; i < 7; i++)
        vmwrite(0xc00 + 2 * i, host_selectors[i]);
    for (int guest = 0; guest < 2; guest++) {
        u64 base = guest ? 0x6800 : 0x6c00;
        vmwrite(base, read_cr0());
        vmwrite(base + 2, read_cr3());
        vmwrite(base + 4, read_cr4());
    }
    vmwrite(0x6c0a, (u64)tss);
    vmwrite(0x6c0c, (u64)gdt);
    vmwrite(0x6c0e, (u64)idt);
    for (int i = 0; i < 8; i++) {
        int code = i == 1, ldt = i == 6, task = i == 7;
        vmwrite(0x800 + 2 * i, ldt ? 0 : task ? 0x18 : code ? 8 : 0x10);
        vmwrite(0x4800 + 2 * i, task ? 0x67 : 0xffffffff);
        vmwrite(0x4814 + 2 * i, ldt ? 0x10000 : task ? 0x8b : code ? 0xa09b : 0xc093);
        vmwrite(0x6806 + 2 * i, task ? (u64)tss : 0);
    }
    vmwrite(0x4810, 39);
    vmwrite(0x4812, 4095);
    vmwrite(0x6816, (u64)gdt);
    vmwrite(0x6818, (u64)idt);
    vmwrite(0x681a, 0x400);
    vmwrite(0x681c, (u64)guest_stack_top);
    vmwrite(0x681e, (u64)rip);
    vmwrite(0x6820, 2);
}

static void vmx_cpuid(void) { vmcs_setup(page[1], 0, guest_cpuid); }
static void vmx_io(void) { vmcs_setup(page[1], 0, guest_io); }
static void vmx_cpuid_ept(void) { vmcs_setup(page[2], 1, guest_cpuid); }
static void vmx_chase_ept(void) {
    make_cycle();
    vmcs_setup(page[3], 1, guest_chase);
}

static u64 vmx_rounds(u64 exit, u64 rounds, u64 *aux) {
    expected_exit = exit;
    guest_arg = (u64)AREA;
    *aux = vmx_run(rounds);
    return rounds - exits_left;
}
static u64 vmx_exit_cpuid(u64 shorter, u64 *aux) { return vmx_rounds(VMX_EXIT_CPUID, ROUNDS(shorter), aux); }
static u64 vmx_exit_io(u64 shorter, u64 *aux) { return vmx_rounds(VMX_EXIT_IO, ROUNDS(shorter), aux); }
static u64 vmx_chase(u64 shorter, u64 *aux) {
    (void)shorter;
    return vmx_rounds(VMX_EXIT_CPUID, 2, aux) * 3 * CHASE_HOPS;
}

void vmx_phases(u64 shorter) {
    static const struct phase phases[] = {
        {"vmx_exit_cpuid", vmx_cpuid, vmx_exit_cpuid},
        {"vmx_exit_io", vmx_io, vmx_exit_io},
        {"vmx_exit_cpuid_ept", vmx_cpuid_ept, vmx_exit_cpuid},
        {"vmx_ept_chase", vmx_chase_ept, vmx_chase},
    };
    u64 control = rdmsr(0x3a), at = (u64)page[0];
    if (!(control & 1))
        wrmsr(0x3a, control | 5);
    asm volatile("mov %0,%%cr4" ::"r"(read_cr4() | 0x2000));
    *(u32 *)page[0] = rdmsr(0x480) & 0x7fffffff;
    u8 failed;
    asm volatile("vmxon %1; setna %0" : "=q"(failed) : "m"(at) : "cc", "memory");
    if (failed) {
        print("VMXON fails\r\n");
        return;
    }
    int ept = rdmsr(0x482) >> 63 & 1 && rdmsr(0x48b) >> 33 & 1;
    for (int i = 0; i < (ept ? 4 : 2); i++)
        run_phase(&phases[i], shorter);
    asm volatile("vmxoff");
}

static void vmcb_setup(int nested_paging, void (*rip)(void)) {
    u8 *vmcb = page[5], *state = vmcb + 0x400;
    memset(vmcb, 0, 4096);
    memset(iopm, 0xff, sizeof iopm);
    *(u32 *)(vmcb + 0x0c) = 1u << 18 | 1u << 27; // CPUID, IOIO
    *(u32 *)(vmcb + 0x10) = 1;                   // VMRUN
    *(u64 *)(vmcb + 0x40) = (u64)iopm;
    *(u64 *)(vmcb + 0x48) = (u64)msrpm;
    *(u32 *)(vmcb + 0x58) = 1; // ASID
    if (nested_paging) {
        nested_tables(0x87);
        *(u64 *)(vmcb + 0x90) = 1;
        *(u64 *)(vmcb + 0xb0) = (u64)nested4;
    }
    for (int i = 0; i < 6; i++) {
        u8 *segment = state + 16 * i;
        *(u16 *)segment = i == 1 ? 8 : 0x10;
        *(u16 *)(segment + 2) = i == 1 ? 0xa9b : 0xc93;
        *(u32 *)(segment + 4) = ~0u;
    }
    *(u32 *)(state + 0x64) = 39;
    *(u64 *)(state + 0x68) = (u64)gdt;
    *(u32 *)(state + 0x84) = 4095;
    *(u64 *)(state + 0x88) = (u64)idt;
    *(u16 *)(state + 0x90) = 0x18;
    *(u16 *)(state + 0x92) = 0x8b;
    *(u32 *)(state + 0x94) = 0x67;
    *(u64 *)(state + 0x98) = (u64)tss;
    *(u64 *)(state + 0xd0) = rdmsr(0xc0000080);
    *(u64 *)(state + 0x148) = read_cr4();
    *(u64 *)(state + 0x150) = read_cr3();
    *(u64 *)(state + 0x158) = read_cr0();
    *(u64 *)(state + 0x160) = 0x400;
    *(u64 *)(state + 0x168) = 0xffff0ff0;
    *(u64 *)(state + 0x170) = 2;
    *(u64 *)(state + 0x178) = (u64)rip;
    *(u64 *)(state + 0x1d8) = (u64)guest_stack_top;
    *(u64 *)(state + 0x268) = 0x0007040600070406;
}

static void svm_cpuid(void) { vmcb_setup(0, guest_cpuid); }
static void svm_io(void) { vmcb_setup(0, guest_io); }
static void svm_cpuid_npt(void) { vmcb_setup(1, guest_cpuid); }
static void svm_chase_npt(void) {
    make_cycle();
    vmcb_setup(1, guest_chase);
}

static u64 svm_rounds(u64 exit, u64 rounds, u64 *aux) {
    expected_exit = exit;
    guest_arg = (u64)AREA;
    *aux = svm_run(rounds, (u64)page[5]);
    return rounds - exits_left;
}
static u64 svm_exit_cpuid(u64 shorter, u64 *aux) { return svm_rounds(SVM_EXIT_CPUID, ROUNDS(shorter), aux); }
static u64 svm_exit_io(u64 shorter, u64 *aux) { return svm_rounds(SVM_EXIT_IO, ROUNDS(shorter), aux); }
static u64 svm_chase(u64 shorter, u64 *aux) {
    (void)shorter;
    return svm_rounds(SVM_EXIT_CPUID, 2, aux) * 3 * CHASE_HOPS;
}

void svm_phases(u64 shorter, int nested_paging) {
    static const struct phase phases[] = {
        {"svm_exit_cpuid", svm_cpuid, svm_exit_cpuid},
        {"svm_exit_io", svm_io, svm_exit_io},
        {"svm_exit_cpuid_npt", svm_cpuid_npt, svm_exit_cpuid},
        {"svm_npt_chase", svm_chase_npt, svm_chase},
    };
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x1000);
    wrmsr(0xc0010117, (u64)page[4]);
    for (int i = 0; i < (nested_paging ? 4 : 2); i++)
        run_phase(&phases[i], shorter);
}
