//! What KVM passes through on AMD processors: the rows behind vmcb01's MSR permission map.

use rootmode_arch::msr;

use super::{Accesses, Condition as C, Kernel, Part, Row};

const R: Accesses = Accesses::R;
const W: Accesses = Accesses::W;
const RW: Accesses = Accesses::RW;

const fn row(msr: u32, accesses: Accesses, when: C) -> Row {
    Row::new(msr, accesses, when)
}

const fn lbr(first: u32, last: u32, when: C) -> Row {
    Row::range(first, last, RW, when).part(Part::LastBranch)
}

const fn apic(first: u32, last: u32, when: C) -> Row {
    Row::range(first, last, RW, when).part(Part::Apic)
}

/// The pass-through table of SVM.
pub const TABLE: &[Row] = &[
    row(msr::IA32_STAR, RW, C::Always),
    row(msr::IA32_SYSENTER_CS, RW, C::Always),
    Row::range(msr::IA32_FS_BASE, msr::IA32_KERNEL_GS_BASE, RW, C::Always),
    Row::range(msr::IA32_LSTAR, msr::IA32_FMASK, RW, C::Always),
    row(msr::IA32_SYSENTER_ESP, RW, C::GuestNotIntel),
    row(msr::IA32_SYSENTER_EIP, RW, C::GuestNotIntel),
    row(msr::IA32_SPEC_CTRL, RW, C::SpecCtrlOnSvm),
    row(msr::IA32_PRED_CMD, W, C::PredCmd),
    row(msr::IA32_FLUSH_CMD, W, C::FlushCmd),
    lbr(msr::LASTBRANCHFROMIP, msr::LASTINTTOIP, C::LastBranch),
    lbr(msr::IA32_DEBUGCTL, msr::IA32_DEBUGCTL, C::LastBranchOfSevEs),
    Row::range(msr::IA32_MPERF, msr::IA32_APERF, R, C::AperfMperf).since(Kernel::V6_17),
    row(msr::IA32_U_CET, RW, C::ShadowStack).since(Kernel::V6_18),
    row(msr::IA32_S_CET, RW, C::ShadowStack).since(Kernel::V6_18),
    Row::range(msr::IA32_PL0_SSP, msr::IA32_PL3_SSP, RW, C::ShadowStack).since(Kernel::V6_18),
    row(msr::SEV_ES_GHCB, RW, C::SevEs),
    row(msr::IA32_EFER, RW, C::SevEs),
    row(msr::IA32_PAT, RW, C::SevEs),
    row(msr::IA32_TSC_AUX, RW, C::SevEsTscAux),
    row(msr::IA32_XSS, RW, C::SevEsXss),
    row(msr::GUEST_TSC_FREQ, R, C::SecureTsc).since(Kernel::V6_18),
    row(msr::PERF_LEGACY_CTR0, RW, C::Counter(0)).since(Kernel::Later),
    row(msr::PERF_LEGACY_CTR1, RW, C::Counter(1)).since(Kernel::Later),
    row(msr::PERF_LEGACY_CTR2, RW, C::Counter(2)).since(Kernel::Later),
    row(msr::PERF_LEGACY_CTR3, RW, C::Counter(3)).since(Kernel::Later),
    row(msr::PERF_CTR0, RW, C::CoreCounter(0)).since(Kernel::Later),
    row(msr::PERF_CTR1, RW, C::CoreCounter(1)).since(Kernel::Later),
    row(msr::PERF_CTR2, RW, C::CoreCounter(2)).since(Kernel::Later),
    row(msr::PERF_CTR3, RW, C::CoreCounter(3)).since(Kernel::Later),
    row(msr::PERF_CTR4, RW, C::CoreCounter(4)).since(Kernel::Later),
    row(msr::PERF_CTR5, RW, C::CoreCounter(5)).since(Kernel::Later),
    Row::range(msr::PERF_CNTR_GLOBAL_STATUS, msr::PERF_CNTR_GLOBAL_STATUS_SET, RW, C::GlobalCounters)
        .since(Kernel::Later),
    // Of ISR, TMR and IRR, KVM names the first register only.
    apic(msr::IA32_X2APIC_APICID, msr::IA32_X2APIC_VERSION, C::X2Avic),
    apic(msr::IA32_X2APIC_TPR, msr::IA32_X2APIC_ISR0, C::X2Avic),
    apic(msr::IA32_X2APIC_TMR0, msr::IA32_X2APIC_TMR0, C::X2Avic),
    apic(msr::IA32_X2APIC_IRR0, msr::IA32_X2APIC_IRR0, C::X2Avic),
    apic(msr::IA32_X2APIC_ESR, msr::IA32_X2APIC_ESR, C::X2Avic),
    apic(msr::IA32_X2APIC_ICR, msr::IA32_X2APIC_ICR2, C::X2Avic),
    apic(msr::IA32_X2APIC_LVT_TIMER, msr::IA32_X2APIC_LVT_TIMER, C::NeverLvtTimer),
    apic(msr::IA32_X2APIC_LVT_THERMAL, msr::IA32_X2APIC_CUR_COUNT, C::X2Avic),
    apic(msr::IA32_X2APIC_DIV_CONF, msr::IA32_X2APIC_DIV_CONF, C::X2Avic),
];
