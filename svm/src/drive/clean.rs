//! VMCB clean bits: what a processor may keep of the VMCB that it ran last
//! (APM Vol. 2 (24593 rev. 3.43) "VMCB State Caching", "VMCB Clean Field").
//!
//! A tame processor reads everything at every VMRUN, as the manual allows. Hostile hardware trusts each clean bit by choice,
//! and what it then finds to differ is the hypervisor's mistake. One VMCB is kept, by its physical address: for another one
//! all clean bits count as 0.

use super::Svm;
use crate::Vmcb;
use crate::vmcb::{Area, CLEAN_ROWS, Clean, Field, IntCtl, NestedControl, VirtExt};
use rootmode_arch::record::{Payload, TrustedField};
use rootmode_arch::{Cr4, Feature, HostPhysical, Site};
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

/// Whether anything depends on the fields that `bit` covers.
fn matters(bit: Clean, vmcb: &Vmcb) -> bool {
    let value = |field| vmcb.get(field).unwrap_or(0);
    let has = |field, bits: u64| value(field) & bits != 0;
    match bit {
        Clean::NP => has(Field::NestedControl, NestedControl::NP_ENABLE.0),
        Clean::LBR => has(Field::VirtExt, VirtExt::LBR_ENABLE.0),
        Clean::AVIC => has(Field::IntCtl, IntCtl::AVIC_ENABLE.0.into()),
        Clean::CET => has(Field::Cr4, Cr4::CET.0),
        _ => true,
    }
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
        for row in CLEAN_ROWS {
            if !clean.contains(row.bit) || ctx.choose(cpu, Site::CleanBit, 2) != 0 {
                continue;
            }
            for field in row.fields {
                let value = |vmcb: &Vmcb| vmcb.get(*field).unwrap_or(0);
                let (held, written) = (value(&kept.image), value(vmcb));
                if held == written {
                    continue;
                }
                if matters(row.bit, vmcb) && !kept.reported.contains(field) {
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
                vmcb.set(*field, held);
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
