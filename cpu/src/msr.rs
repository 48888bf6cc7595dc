//! The MSRs that the core owns (SDM Vol. 4 "Architectural MSRs", APM Vol. 2 "MSR Cross-Reference").
//! An extension is asked first; what neither knows is #GP(0).

use crate::execute::cet::bit;
use crate::fault::{Fault, Result};
use crate::memory_types::Limits;
use crate::{Cpu, Model};
use rootmode_arch::msr::*;
use rootmode_arch::{Cr0, DebugCtl, Efer, Feature, Linear, SegmentName, Vendor};

/// MSRs that have no other home in [`Cpu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct MsrFile {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// Difference of the TSC from machine time; also IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// IA32_FEATURE_CONTROL (Intel). Reset leaves it unlocked and all clear: firmware or the system allows VMX.
    pub feature_control: u64,
    /// IA32_MISC_ENABLE (Intel).
    pub misc_enable: u64,
    /// SYSCFG (AMD).
    pub syscfg: u64,
    /// HWCR (AMD).
    pub hwcr: u64,
    /// NB_CFG (AMD).
    pub nb_cfg: u64,
    /// Difference of IA32_MPERF from what it counts.
    pub mperf: u64,
    /// Difference of IA32_APERF from what it counts.
    pub aperf: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_UMWAIT_CONTROL.
    pub umwait_control: u64,
}

/// IA32_MISC_ENABLE: CPUID has MONITOR and MWAIT, which are undefined without it ("Enable Monitor FSM").
pub(crate) const MONITOR_ENABLED: u64 = 1 << 18;
/// Bits of IA32_MISC_ENABLE that software cannot write.
const PERFORMANCE_MONITORING: u64 = 1 << 7;
const BRANCH_TRACE_UNAVAILABLE: u64 = 1 << 11;
const PEBS_UNAVAILABLE: u64 = 1 << 12;

impl MsrFile {
    /// The values after reset of processor `index`.
    pub fn reset(model: &Model, index: u8) -> Self {
        Self {
            pat: 0x0007_0406_0007_0406,
            apic_base: 0xfee0_0800 | if index == 0 { 0x100 } else { 0 },
            misc_enable: 1
                | BRANCH_TRACE_UNAVAILABLE
                | PEBS_UNAVAILABLE
                | if model.has(Feature::Pdcm) { PERFORMANCE_MONITORING } else { 0 }
                | if model.has(Feature::Monitor) { MONITOR_ENABLED } else { 0 },
            ..Self::default()
        }
    }

    /// Every value, in declaration order.
    pub const fn values(&self) -> [u64; 22] {
        [
            self.star,
            self.lstar,
            self.cstar,
            self.fmask,
            self.kernel_gs_base,
            self.sysenter_cs,
            self.sysenter_esp,
            self.sysenter_eip,
            self.tsc_aux,
            self.tsc_adjust,
            self.pat,
            self.debugctl,
            self.apic_base,
            self.feature_control,
            self.misc_enable,
            self.syscfg,
            self.hwcr,
            self.nb_cfg,
            self.mperf,
            self.aperf,
            self.spec_ctrl,
            self.umwait_control,
        ]
    }
}

/// Reads an MSR of the core, without privilege checks or interception: RDMSR's last step, MSR-store lists.
///
/// # Errors
/// #GP(0) if the model has no such MSR.
pub fn read(cpu: &Cpu, index: u32) -> Result<u64> {
    let m = &cpu.msrs;
    let intel = cpu.model.vendor() == Vendor::Intel;
    Ok(match index {
        IA32_TSC => cpu.tsc(),
        IA32_TSC_ADJUST if cpu.model.has(Feature::TscAdjust) => m.tsc_adjust,
        IA32_APIC_BASE => m.apic_base,
        IA32_TSC_DEADLINE if cpu.model.has(Feature::TscDeadline) => cpu.apic.tsc_deadline(cpu.clock()),
        0x800..=0x8ff => cpu.apic.read_msr(index, cpu.clock())?,
        IA32_SYSENTER_CS => m.sysenter_cs,
        IA32_SYSENTER_ESP => m.sysenter_esp,
        IA32_SYSENTER_EIP => m.sysenter_eip,
        IA32_PAT => m.pat,
        IA32_DEBUGCTL => m.debugctl,
        LASTBRANCHFROMIP..=LASTINTTOIP if !intel => {
            cpu.branches.values()[(index - LASTBRANCHFROMIP) as usize]
        }
        IA32_BIOS_SIGN_ID => 1 << 32,
        IA32_EFER => cpu.efer.0,
        IA32_STAR => m.star,
        IA32_LSTAR => m.lstar,
        IA32_CSTAR => m.cstar,
        IA32_FMASK => m.fmask,
        IA32_FS_BASE => cpu.segment(SegmentName::Fs).base,
        IA32_GS_BASE => cpu.segment(SegmentName::Gs).base,
        IA32_KERNEL_GS_BASE => m.kernel_gs_base,
        IA32_TSC_AUX if cpu.model.has(Feature::Rdtscp) => m.tsc_aux,
        IA32_XSS if cpu.model.has(Feature::Xsaves) => cpu.xss,
        IA32_FEATURE_CONTROL if intel => m.feature_control,
        MSR_PLATFORM_INFO if intel => PLATFORM_INFO,
        IA32_MISC_ENABLE if intel => m.misc_enable,
        IA32_PKRS if cpu.model.has(Feature::Pks) => u64::from(cpu.pkrs),
        IA32_U_CET if has_cet(cpu) => cpu.control_flow.user,
        IA32_S_CET if has_cet(cpu) => cpu.control_flow.supervisor,
        IA32_PL0_SSP..=IA32_PL3_SSP if cpu.model.has(Feature::Shstk) => {
            cpu.control_flow.levels[(index - IA32_PL0_SSP) as usize]
        }
        IA32_INTERRUPT_SSP_TABLE_ADDR if cpu.model.has(Feature::Shstk) => cpu.control_flow.table,
        IA32_PLATFORM_ID if intel => 0,
        IA32_MPERF if cpu.model.has(Feature::Aperfmperf) && intel => cpu.mperf(),
        // APM Vol. 2 "TSC Ratio MSR": a guest reads it scaled, without an offset.
        IA32_MPERF if cpu.model.has(Feature::Aperfmperf) => cpu.scaled(cpu.mperf()),
        IA32_APERF if cpu.model.has(Feature::Aperfmperf) => cpu.aperf(),
        IA32_SPEC_CTRL if speculation_bits(&cpu.model) != 0 => m.spec_ctrl,
        IA32_UMWAIT_CONTROL if cpu.model.has(Feature::Waitpkg) => m.umwait_control,
        IA32_ARCH_CAPABILITIES if cpu.model.has(Feature::ArchCapabilities) => {
            // IBRS that stays on is IBRS.
            if cpu.model.has(Feature::SpecCtrl) { NOTHING_LEAKS | IBRS_ALL } else { NOTHING_LEAKS }
        }
        SYSCFG if !intel => m.syscfg,
        HWCR if !intel => m.hwcr | TSC_FREQ_SEL,
        NB_CFG if !intel => m.nb_cfg,
        _ => {
            if let Some(register) = cpu.counters.register(index) {
                return Ok(cpu.settled_counters().read(register));
            }
            if cpu.model.has(Feature::Mtrr)
                && let Some(value) = cpu.memory_types.read(index)
            {
                return Ok(value);
            }
            let checked = cpu.model.has(Feature::Mca).then(|| cpu.machine_check.read(index)).flatten();
            return checked.ok_or(Fault::GP0);
        }
    })
}

/// Writes an MSR of the core, without privilege checks or interception: WRMSR's last step, MSR-load lists.
/// `efer_bits` are those that the extension adds to the core's.
///
/// # Errors
/// #GP(0) if the model has no such MSR or the value is illegal; nothing was changed.
pub fn write(cpu: &mut Cpu, index: u32, value: u64, efer_bits: u64) -> Result {
    let intel = cpu.model.vendor() == Vendor::Intel;
    let width = cpu.register_width();
    let canonical = |value| if Linear(value).is_canonical(width) { Ok(value) } else { Err(Fault::GP0) };
    // AMD truncates SYSENTER_ESP and EIP to 32 bits only in legacy mode; both vendors demand canonical addresses.
    match index {
        IA32_TSC => {
            let delta = value.wrapping_sub(cpu.host_tsc());
            cpu.msrs.tsc_adjust = cpu.msrs.tsc_adjust.wrapping_add(delta);
            cpu.tsc_changed();
        }
        IA32_TSC_ADJUST if cpu.model.has(Feature::TscAdjust) => {
            cpu.msrs.tsc_adjust = value;
            cpu.tsc_changed();
        }
        IA32_APIC_BASE => cpu.write_apic_base(value)?,
        IA32_TSC_DEADLINE if cpu.model.has(Feature::TscDeadline) => cpu.write_tsc_deadline(value),
        0x800..=0x8ff => cpu.write_x2apic(index, value)?,
        IA32_SYSENTER_CS => cpu.msrs.sysenter_cs = value & 0xffff_ffff,
        IA32_SYSENTER_ESP => cpu.msrs.sysenter_esp = canonical(value)?,
        IA32_SYSENTER_EIP => cpu.msrs.sysenter_eip = canonical(value)?,
        IA32_PAT => {
            if value.to_le_bytes().iter().any(|t| !matches!(t, 0 | 1 | 4..=7)) {
                return Err(Fault::GP0);
            }
            cpu.msrs.pat = value;
        }
        IA32_DEBUGCTL => {
            // LBR and BTF. Only AMD's branch records are modelled: Intel's enable bit reads back.
            let freeze =
                if intel && cpu.model.has(Feature::Pdcm) { DebugCtl::FREEZE_PERFMON_ON_PMI.0 } else { 0 };
            let bus_locks = if cpu.model.has(Feature::BusLockDetect) { DebugCtl::BLD.0 } else { 0 };
            if value & !(3 | freeze | bus_locks) != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.debugctl = value;
            cpu.update_attention();
        }
        IA32_BIOS_SIGN_ID => {}
        IA32_EFER => write_efer(cpu, value, efer_bits)?,
        IA32_STAR => cpu.msrs.star = value,
        IA32_LSTAR => cpu.msrs.lstar = canonical(value)?,
        IA32_CSTAR => cpu.msrs.cstar = canonical(value)?,
        IA32_FMASK => cpu.msrs.fmask = value & 0xffff_ffff,
        IA32_FS_BASE => cpu.segment_mut(SegmentName::Fs).base = canonical(value)?,
        IA32_GS_BASE => cpu.segment_mut(SegmentName::Gs).base = canonical(value)?,
        IA32_KERNEL_GS_BASE => cpu.msrs.kernel_gs_base = canonical(value)?,
        IA32_TSC_AUX if cpu.model.has(Feature::Rdtscp) => {
            if intel && value >> 32 != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.tsc_aux = value & 0xffff_ffff;
        }
        IA32_XSS if cpu.model.has(Feature::Xsaves) => {
            if value & !crate::components::supported(cpu.model.features(), true) != 0 {
                return Err(Fault::GP0);
            }
            cpu.xss = value;
        }
        IA32_FEATURE_CONTROL if intel => {
            if cpu.msrs.feature_control & 1 != 0 || value & !7 != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.feature_control = value;
        }
        IA32_PKRS if cpu.model.has(Feature::Pks) => {
            cpu.pkrs = u32::try_from(value).map_err(|_| Fault::GP0)?;
            cpu.refresh();
        }
        IA32_U_CET | IA32_S_CET if has_cet(cpu) => {
            check_cet(cpu, value)?;
            let flow = &mut cpu.control_flow;
            *(if index == IA32_U_CET { &mut flow.user } else { &mut flow.supervisor }) = value;
            cpu.update_attention();
        }
        IA32_PL0_SSP..=IA32_PL3_SSP if cpu.model.has(Feature::Shstk) => {
            check_shadow_pointer(cpu, value)?;
            cpu.control_flow.levels[(index - IA32_PL0_SSP) as usize] = value;
        }
        IA32_INTERRUPT_SSP_TABLE_ADDR if cpu.model.has(Feature::Shstk) => {
            cpu.control_flow.table = canonical(value)?;
        }
        IA32_MPERF if cpu.model.has(Feature::Aperfmperf) => {
            cpu.msrs.mperf = 0;
            cpu.msrs.mperf = value.wrapping_sub(cpu.mperf());
        }
        IA32_APERF if cpu.model.has(Feature::Aperfmperf) => {
            cpu.msrs.aperf = 0;
            cpu.msrs.aperf = value.wrapping_sub(cpu.aperf());
        }
        IA32_SPEC_CTRL if speculation_bits(&cpu.model) != 0 => {
            if value & !speculation_bits(&cpu.model) != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.spec_ctrl = value;
        }
        // Bit 1 is reserved.
        IA32_UMWAIT_CONTROL if cpu.model.has(Feature::Waitpkg) => {
            if value & !0xffff_fffd != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.umwait_control = value;
        }
        // Commands: there is nothing to flush.
        IA32_PRED_CMD if cpu.model.has(Feature::SpecCtrl) && value <= 1 => {}
        IA32_FLUSH_CMD if cpu.model.has(Feature::FlushL1d) && value <= 1 => {}
        IA32_MISC_ENABLE if intel => {
            let fixed = PERFORMANCE_MONITORING | BRANCH_TRACE_UNAVAILABLE | PEBS_UNAVAILABLE;
            cpu.msrs.misc_enable = value & !fixed | cpu.msrs.misc_enable & fixed;
        }
        SYSCFG if !intel => {
            let changed = cpu.msrs.syscfg ^ value;
            cpu.msrs.syscfg = value;
            if changed & MEM_ENCRYPTION_MOD_EN != 0 && cpu.model.c_bit() != 0 {
                // Cached translations know another C-bit.
                cpu.tlb.flush_all();
                cpu.refresh();
            }
        }
        HWCR if !intel => cpu.msrs.hwcr = value,
        NB_CFG if !intel => cpu.msrs.nb_cfg = value & ENABLE_CF8_EXT_CFG,
        _ => {
            if let Some(register) = cpu.counters.register(index) {
                return cpu.write_counters(register, value);
            }
            let limits = Limits {
                physical_width: cpu.model.physical_width(),
                dram_bits: !intel && cpu.msrs.syscfg & MTRR_FIX_DRAM_MOD_EN != 0,
            };
            if cpu.model.has(Feature::Mtrr)
                && let Some(written) = cpu.memory_types.write(index, value, limits)
            {
                return written;
            }
            let checked =
                cpu.model.has(Feature::Mca).then(|| cpu.machine_check.write(index, value)).flatten();
            return checked.unwrap_or(Err(Fault::GP0));
        }
    }
    Ok(())
}

/// SYSCFG.MemEncryptionModEn.
pub(crate) const MEM_ENCRYPTION_MOD_EN: u64 = 1 << 23;
/// HWCR.TscFreqSel: the TSC counts with the frequency of P0. It can only be read.
const TSC_FREQ_SEL: u64 = 1 << 24;
/// NB_CFG.EnableCf8ExtCfg: bits 27:24 of port 0xCF8 select extended registers, which no function has here.
const ENABLE_CF8_EXT_CFG: u64 = 1 << 46;
/// SYSCFG.MtrrFixDramModEn.
const MTRR_FIX_DRAM_MOD_EN: u64 = 1 << 19;

/// MSR_PLATFORM_INFO: the ratio of the TSC to 100 MHz, which is also the highest without turbo. Nothing can be programmed.
const PLATFORM_INFO: u64 = crate::time::TSC.hertz() / 100_000_000 << 8;

/// IA32_ARCH_CAPABILITIES of a processor that does not speculate: RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
/// IF_PSCHANGE_MC_NO, TAA_NO.
const NOTHING_LEAKS: u64 = 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8;

/// IA32_ARCH_CAPABILITIES: setting IA32_SPEC_CTRL.IBRS once is enough.
const IBRS_ALL: u64 = 1 << 1;

/// Bits of IA32_SPEC_CTRL that `model` has, which change nothing: IBRS, STIBP, SSBD.
pub fn speculation_bits(model: &Model) -> u64 {
    let rows = [
        (Feature::SpecCtrl, 1),
        (Feature::AmdIbrs, 1),
        (Feature::Stibp, 2),
        (Feature::AmdStibp, 2),
        (Feature::Ssbd, 4),
        (Feature::AmdSsbd, 4),
    ];
    rows.iter().filter(|(feature, _)| model.has(*feature)).fold(0, |bits, (_, bit)| bits | bit)
}

fn has_cet(cpu: &Cpu) -> bool {
    cpu.model.has(Feature::Shstk) || cpu.model.has(Feature::Ibt)
}

/// # Errors
/// #GP(0) if IA32_U_CET and IA32_S_CET cannot have `value`.
pub(crate) fn check_cet(cpu: &Cpu, value: u64) -> Result {
    let (shadow, tracking) = (bit::SHADOW_STACK | bit::WRITE, bit::SUPPRESS | bit::WAIT);
    let reserved = match (cpu.model.has(Feature::Shstk), cpu.model.has(Feature::Ibt)) {
        (true, true) => bit::RESERVED,
        (true, false) => !shadow,
        (false, _) => bit::RESERVED | shadow,
    };
    let canonical = Linear(value).is_canonical(cpu.register_width());
    let legal = value & reserved == 0 && value & tracking != tracking && canonical;
    if legal { Ok(()) } else { Err(Fault::GP0) }
}

/// # Errors
/// #GP(0) if IA32_PL0_SSP to IA32_PL3_SSP cannot have `value`.
pub(crate) fn check_shadow_pointer(cpu: &Cpu, value: u64) -> Result {
    let legal = value & 3 == 0 && Linear(value).is_canonical(cpu.register_width());
    if legal { Ok(()) } else { Err(Fault::GP0) }
}

/// EFER: reserved bits, and LME may not change while paging is on. LMA is not writable.
fn write_efer(cpu: &mut Cpu, value: u64, extension_bits: u64) -> Result {
    let mut allowed = Efer(extension_bits) | Efer::LMA;
    for (feature, bits) in [
        (Feature::Syscall, Efer::SCE),
        (Feature::LongMode, Efer::LME),
        (Feature::Nx, Efer::NXE),
        (Feature::Ffxsr, Efer::FFXSR),
    ] {
        if cpu.model.has(feature) {
            allowed = allowed | bits;
        }
    }
    let (new, old) = (Efer(value), cpu.efer);
    let changes_lme = (new.0 ^ old.0) & Efer::LME.0 != 0;
    if value & !allowed.0 != 0 || changes_lme && cpu.cr0.contains(Cr0::PG) {
        return Err(Fault::GP0);
    }
    let nxe_changes = (new.0 ^ old.0) & Efer::NXE.0 != 0;
    cpu.efer = new.set(Efer::LMA, old.contains(Efer::LMA));
    if nxe_changes {
        // Cached rights were computed with the old meaning of bit 63.
        cpu.tlb.flush_space(cpu.published.space);
    }
    cpu.refresh();
    Ok(())
}
