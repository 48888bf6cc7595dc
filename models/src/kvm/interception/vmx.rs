//! What KVM passes through on Intel processors: the rows behind vmcs01's MSR bitmap.

use rootmode_arch::msr;

use super::{Accesses, Condition as C, Kernel, Part, Row};

const R: Accesses = Accesses::R;
const W: Accesses = Accesses::W;
const RW: Accesses = Accesses::RW;

const fn row(msr: u32, accesses: Accesses, when: C) -> Row {
    Row::new(msr, accesses, when)
}

const fn apic(first: u32, last: u32, accesses: Accesses, when: C) -> Row {
    Row::range(first, last, accesses, when).part(Part::Apic)
}

const fn counter(msr: u32, when: C) -> Row {
    Row::new(msr, RW, when).since(Kernel::Later)
}

const fn trace_pair(pair: u8) -> Row {
    let first = msr::IA32_RTIT_ADDR0_A + 2 * pair as u32;
    Row::range(first, first + 1, RW, C::TraceAddress(pair))
}

/// IA32_A_PMC0, the full-width alias of the first general-purpose counter.
const FULL_WIDTH_COUNTER0: u32 = 0x4c1;
/// IA32_FIXED_CTR0.
const FIXED_COUNTER0: u32 = 0x309;
/// IA32_PERF_GLOBAL_OVF_CTRL.
const GLOBAL_OVF_CTRL: u32 = 0x390;

/// The pass-through table of VMX.
pub const TABLE: &[Row] = &[
    row(msr::IA32_TSC, R, C::Always),
    Row::range(msr::IA32_FS_BASE, msr::IA32_KERNEL_GS_BASE, RW, C::Always),
    Row::range(msr::IA32_SYSENTER_CS, msr::IA32_SYSENTER_EIP, RW, C::Always),
    row(msr::MSR_CORE_C1_RES, R, C::CStates),
    Row::range(msr::MSR_CORE_C3_RESIDENCY, msr::MSR_CORE_C7_RESIDENCY, R, C::CStates),
    Row::range(msr::IA32_MPERF, msr::IA32_APERF, R, C::AperfMperf).since(Kernel::V6_17),
    Row::range(msr::IA32_RTIT_OUTPUT_BASE, msr::IA32_RTIT_OUTPUT_MASK_PTRS, RW, C::ProcessorTrace),
    Row::range(msr::IA32_RTIT_STATUS, msr::IA32_RTIT_CR3_MATCH, RW, C::ProcessorTrace),
    trace_pair(0),
    trace_pair(1),
    trace_pair(2),
    trace_pair(3),
    row(msr::IA32_XFD, RW, C::XfdWritten),
    row(msr::IA32_XFD_ERR, R, C::Xfd),
    row(msr::IA32_SPEC_CTRL, RW, C::SpecCtrlOnVmx),
    row(msr::IA32_PRED_CMD, W, C::PredCmd),
    row(msr::IA32_FLUSH_CMD, W, C::FlushCmd),
    row(msr::IA32_U_CET, RW, C::Cet).since(Kernel::V6_18),
    row(msr::IA32_S_CET, RW, C::Cet).since(Kernel::V6_18),
    Row::range(msr::IA32_PL0_SSP, msr::IA32_PL3_SSP, RW, C::ShadowStack).since(Kernel::V6_18),
    counter(msr::IA32_PMC0, C::Counter(0)),
    counter(msr::IA32_PMC1, C::Counter(1)),
    counter(msr::IA32_PMC2, C::Counter(2)),
    counter(msr::IA32_PMC3, C::Counter(3)),
    counter(FULL_WIDTH_COUNTER0, C::FullWidthCounter(0)),
    counter(FULL_WIDTH_COUNTER0 + 1, C::FullWidthCounter(1)),
    counter(FULL_WIDTH_COUNTER0 + 2, C::FullWidthCounter(2)),
    counter(FULL_WIDTH_COUNTER0 + 3, C::FullWidthCounter(3)),
    counter(FIXED_COUNTER0, C::FixedCounter(0)),
    counter(FIXED_COUNTER0 + 1, C::FixedCounter(1)),
    counter(FIXED_COUNTER0 + 2, C::FixedCounter(2)),
    Row::range(msr::IA32_PERF_GLOBAL_STATUS, GLOBAL_OVF_CTRL, RW, C::GlobalCounters).since(Kernel::Later),
    // Every readable register but the timer's current count; without APICv only the task priority.
    apic(msr::IA32_X2APIC_APICID, msr::IA32_X2APIC_VERSION, R, C::Apicv),
    apic(msr::IA32_X2APIC_TPR, msr::IA32_X2APIC_TPR, RW, C::VirtualX2apic),
    apic(msr::IA32_X2APIC_PPR, msr::IA32_X2APIC_PPR, R, C::Apicv),
    apic(msr::IA32_X2APIC_EOI, msr::IA32_X2APIC_EOI, W, C::Apicv),
    apic(msr::IA32_X2APIC_LDR, msr::IA32_X2APIC_LDR, R, C::Apicv),
    apic(msr::IA32_X2APIC_SIVR, msr::IA32_X2APIC_ESR, R, C::Apicv),
    apic(msr::IA32_X2APIC_ICR, msr::IA32_X2APIC_ICR, R, C::Apicv),
    apic(msr::IA32_X2APIC_ICR, msr::IA32_X2APIC_ICR, W, C::VirtualIpi),
    apic(msr::IA32_X2APIC_LVT_TIMER, msr::IA32_X2APIC_INIT_COUNT, R, C::Apicv),
    apic(msr::IA32_X2APIC_DIV_CONF, msr::IA32_X2APIC_DIV_CONF, R, C::Apicv),
    apic(msr::IA32_X2APIC_SELF_IPI, msr::IA32_X2APIC_SELF_IPI, W, C::Apicv),
];
