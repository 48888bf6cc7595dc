//! VMCB clean bits: what a processor may keep of the VMCB that it ran last
//! (APM Vol. 2 (24593 rev. 3.43) "VMCB State Caching", "VMCB Clean Field").
//!
//! A tame processor reads everything at every VMRUN, as the manual allows. Hostile hardware trusts each clean bit by choice,
//! and what it then finds to differ is the hypervisor's mistake. One VMCB is kept, by its physical address: for another one
//! all clean bits count as 0.

use super::Svm;
use crate::decide::{Controls, Traits};
use crate::vmcb::{Area, CLEAN_ROWS, Clean, Field, IntCtl, Intercept, NestedControl, VirtExt};
use crate::{Processor, Vmcb};
use rootmode_arch::record::{Payload, TrustedField};
use rootmode_arch::{Cr0, Feature, HostPhysical, Site};
use rootmode_cpu::{Context, Cpu};
use rootmode_mmu::Digest;

/// The VMCB that hostile hardware keeps.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    at: HostPhysical,
    image: Vmcb,
    /// The fields that were reported since the VMCB was last kept: each is reported once.
    reported: Vec<Field>,
}

impl Kept {
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.u64(self.at.0);
        digest.bytes(self.image.as_bytes());
    }
}

/// The bits of `field` that anything depends on, given the rest of `vmcb` (as the processor uses it) and `written`, what
/// memory has of the field itself.
fn relevant(field: Field, written: u64, vmcb: &Vmcb, processor: &Processor) -> u64 {
    let value = |field| vmcb.get(field).unwrap_or(0);
    let has = |field, bits: u64| value(field) & bits != 0;
    let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
    let intercepted = |intercept: Intercept| vmcb.intercepts().is_some_and(|all| all.has(intercept));
    let control = Controls::of(vmcb, Traits::of(processor));
    match field {
        // Registers that exist.
        Field::InterceptCr => 0x011d_011d,
        Field::InterceptDr => 0x00ff_00ff,
        Field::PauseFilterCount => {
            when(control.traits.pause_filter && intercepted(Intercept::PAUSE), u64::MAX)
        }
        Field::PauseFilterThreshold => {
            let counts = intercepted(Intercept::PAUSE) && has(Field::PauseFilterCount, u64::MAX);
            when(control.traits.pause_filter_threshold && counts, u64::MAX)
        }
        Field::IopmBase => when(intercepted(Intercept::IOIO_PROT), !0xfff),
        Field::MsrpmBase => when(intercepted(Intercept::MSR_PROT), !0xfff),
        Field::IntCtl => {
            relevant_control(IntCtl((written | value(field)) as u32), &control, processor).0.into()
        }
        Field::IntVector => when(control.int_ctl.contains(IntCtl::V_IRQ) && !control.is_avic(), 0xff),
        Field::NestedCr3 | Field::GPat => when(control.nested.contains(NestedControl::NP_ENABLE), u64::MAX),
        Field::Dbgctl | Field::BrFrom | Field::BrTo | Field::LastExcpFrom | Field::LastExcpTo => {
            let switched = processor.has(Feature::LbrVirtualization);
            when(switched && control.virt_ext.contains(VirtExt::LBR_ENABLE), u64::MAX)
        }
        Field::AvicApicBar | Field::AvicLogicalTable => {
            when(control.is_avic() && !control.is_x2avic(), 0x000f_ffff_ffff_f000)
        }
        Field::AvicBackingPage => when(control.is_avic(), 0x000f_ffff_ffff_f000),
        Field::AvicPhysicalTable => when(control.is_avic(), 0x000f_ffff_ffff_ffff),
        Field::SCet | Field::Ssp | Field::IsstAddr => when(processor.has(Feature::Shstk), u64::MAX),
        // Always set.
        Field::Cr0 => !Cr0::ET.0,
        Field::GdtrLimit | Field::IdtrLimit => 0xffff,
        Field::CsAttrib | Field::DsAttrib | Field::EsAttrib | Field::SsAttrib => 0xfff,
        _ => u64::MAX,
    }
}

/// The same of VINTR_CONTROL, whose values, kept and written, have `bits` together.
fn relevant_control(bits: IntCtl, control: &Controls, processor: &Processor) -> IntCtl {
    let mut relevant = IntCtl::V_INTR_MASKING;
    if processor.has(Feature::VirtualGif) {
        relevant = relevant | IntCtl::V_GIF_ENABLE;
        if bits.contains(IntCtl::V_GIF_ENABLE) {
            relevant = relevant | IntCtl::V_GIF;
        }
    }
    if processor.has(Feature::VirtualNmi) {
        relevant = relevant | IntCtl::V_NMI_ENABLE;
        if bits.contains(IntCtl::V_NMI_ENABLE) {
            relevant = relevant | IntCtl::V_NMI | IntCtl::V_NMI_MASK;
        }
    }
    if processor.has(Feature::Avic) {
        relevant = relevant | IntCtl::AVIC_ENABLE;
    }
    if processor.has(Feature::X2Avic) {
        relevant = relevant | IntCtl::X2AVIC_ENABLE;
    }
    if control.is_avic() {
        // The backing page takes their place.
        return relevant;
    }
    relevant = relevant | IntCtl::V_IRQ;
    // V_TPR is what CR8 reads, or what a pending interrupt is compared with.
    if bits.contains(IntCtl::V_INTR_MASKING) || bits.contains(IntCtl::V_IRQ) {
        relevant = relevant | IntCtl::default().with_v_tpr(15);
    }
    if bits.contains(IntCtl::V_IRQ) {
        relevant = relevant | IntCtl::V_IGN_TPR | IntCtl::default().with_v_intr_prio(15);
    }
    relevant
}

impl Svm {
    /// Puts what the processor keeps and trusts in place of what `vmcb`, read at `at`, holds.
    pub(super) fn trust_clean_bits(
        &mut self,
        cpu: &Cpu,
        ctx: &mut Context<'_>,
        at: HostPhysical,
        vmcb: &mut Vmcb,
    ) {
        if ctx.memory.ledger().is_none() || !self.processor.has(Feature::VmcbClean) {
            return;
        }
        let clean = Clean(vmcb.get(Field::CleanBits).unwrap_or(0) as u32);
        let Some(mut kept) = self.kept.take().filter(|kept| kept.at == at) else {
            let set = clean.0 & Clean::NAMED.without(Clean::SOFTWARE).0;
            if set != 0 {
                let miss = TrustedField { vmcb: at, bits: set, field: None, kept: 0, written: 0 };
                ctx.emit(cpu, Payload::Trusted(miss));
            }
            self.kept = Some(Box::new(Kept { at, image: vmcb.clone(), reported: Vec::new() }));
            return;
        };
        // The state of an SEV-ES guest is not in its VMCB.
        let es = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
        let asks = NestedControl(vmcb.get(Field::NestedControl).unwrap_or(0)).contains(es);
        let encrypted = asks && self.processor.has(Feature::SevEs) && cpu.host_c_bit() != 0;
        for row in CLEAN_ROWS {
            if !clean.contains(row.bit) || ctx.choose(cpu, Site::CleanBit, 2) != 0 {
                continue;
            }
            for field in row.fields {
                if encrypted && field.row().area == Area::Save {
                    continue;
                }
                let value = |vmcb: &Vmcb| vmcb.get(*field).unwrap_or(0);
                let (held, written) = (value(&kept.image), value(vmcb));
                if held == written {
                    continue;
                }
                vmcb.set(*field, held);
                let differs = (held ^ written) & relevant(*field, written, vmcb, &self.processor);
                if differs != 0 && !kept.reported.contains(field) {
                    kept.reported.push(*field);
                    let trusted = TrustedField {
                        vmcb: at,
                        bits: row.bit.0,
                        field: Some(field.row().offset),
                        kept: held,
                        written,
                    };
                    ctx.emit(cpu, Payload::Trusted(trusted));
                }
            }
        }
        kept.image = vmcb.clone();
        self.kept = Some(kept);
    }

    /// The processor knows what an exit wrote into the VMCB at `at`.
    pub(super) fn keep_exit(&mut self, ctx: &Context<'_>, at: HostPhysical) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.at == at) else { return };
        let mut written = Vmcb::zeroed();
        super::read_vmcb(ctx, at, &mut written);
        for field in CLEAN_ROWS.iter().flat_map(|row| row.fields) {
            if (field.row().area == Area::Save || *field == Field::IntCtl)
                && let Some(value) = written.get(*field)
            {
                kept.image.set(*field, value);
            }
        }
    }
}
