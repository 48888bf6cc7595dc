//! System-management mode: SMI and RSM (SDM Vol. 3C "System Management Mode", APM Vol. 2 "System-Management Mode").
//!
//! `map` is each vendor's state-save area as a table. A guest that an SMI interrupts is set aside with everything that its
//! extension published, as the default treatment of SMIs does, and goes on after RSM.

mod map;

use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use crate::state::{Activity, Published};
use map::{Field, Values};
use rootmode_arch::record::Stop;
use rootmode_arch::{
    AccessRights, Cr0, Cr4, Efer, Event, HostPhysical, RFlags, Segment, SegmentName, Selector, Vendor,
};

/// SMBASE after reset.
pub(crate) const RESET_BASE: u32 = 0x3_0000;

/// What SMM keeps inside the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Interrupted {
    /// What the extension had published for the guest that the SMI interrupted.
    published: Published,
    pending_debug: u64,
}

/// The port instruction that completed last: what an SMI at its boundary reports, and may have restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct PortInstruction {
    /// The tick at which it completed.
    pub(crate) tick: u64,
    pub(crate) rip: u64,
    pub(crate) rcx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) port: u16,
    /// Bytes: 1, 2 or 4.
    pub(crate) size: u8,
    pub(crate) input: bool,
    pub(crate) string: bool,
    pub(crate) rep: bool,
    pub(crate) immediate: bool,
}

impl Exec<'_, '_> {
    /// Enters SMM at an instruction boundary.
    pub(crate) fn enter_smm(&mut self) {
        let cpu = &mut *self.cpu;
        let values = Values::of(cpu);
        let base = u64::from(cpu.smbase);
        self.ctx.memory.set_management(true);
        for (row, value) in values.iter() {
            let at = HostPhysical(base + u64::from(row.offset));
            self.ctx.memory.write(at, &value.to_le_bytes()[..usize::from(row.size)]);
        }
        cpu.tlb.flush_space(cpu.published.space);
        cpu.before_smm = Interrupted { published: cpu.published, pending_debug: cpu.pending_debug };
        cpu.published = Published { level: cpu.published.level, ..Published::default() };
        cpu.tlb.flush_space(0);
        cpu.interrupts.smi = false;
        cpu.smm = true;
        cpu.nmi_blocked = true;
        cpu.pending_debug = 0;
        (cpu.sti_shadow, cpu.mov_ss_shadow) = (false, false);
        cpu.activity = Activity::Active;
        cpu.cr0 = cpu.cr0.without(Cr0::PE | Cr0::EM | Cr0::TS | Cr0::PG);
        cpu.cr4 = Cr4(0);
        cpu.efer = Efer(0);
        cpu.dr7 = 0x400;
        cpu.set_level(0);
        let rights = AccessRights(0x8093);
        let data = Segment { selector: Selector(0), rights, limit: u32::MAX, base: 0 };
        for index in 0..6 {
            cpu.segments[index] = data;
        }
        *cpu.segment_mut(SegmentName::Cs) = Segment { selector: Selector((base >> 4) as u16), base, ..data };
        cpu.rip = 0x8000;
        cpu.set_rflags(RFlags::ONE);
        cpu.refresh();
    }

    /// Loads what the state-save area holds.
    ///
    /// # Errors
    /// Shutdown for control registers that cannot be.
    fn leave_smm(&mut self) -> Result {
        let base = u64::from(self.cpu.smbase);
        let vendor = self.cpu.model.vendor();
        let memory = &*self.ctx.memory;
        let values = Values::read(vendor, |row| {
            let mut bytes = [0; 8];
            let at = HostPhysical(base + u64::from(row.offset));
            memory.read(at, &mut bytes[..usize::from(row.size)]);
            u64::from_le_bytes(bytes)
        });
        let cpu = &mut *self.cpu;
        if !is_possible(cpu, &values) {
            cpu.activity = Activity::Shutdown;
            cpu.update_attention();
            return Err(Fault::Stop(Stop::TripleFault));
        }
        cpu.tlb.flush_space(cpu.published.space);
        let before = std::mem::take(&mut cpu.before_smm);
        cpu.published = before.published;
        cpu.pending_debug = before.pending_debug;
        cpu.smm = false;
        self.ctx.memory.set_management(false);
        values.load(cpu);
        cpu.tlb.flush_space(cpu.published.space);
        if cpu.reload_pdptes(self.ctx.memory).is_err() {
            return Err(Fault::Stop(Stop::TripleFault));
        }
        self.cpu.refresh();
        Ok(())
    }
}

/// Whether RSM may load the control registers (SDM Vol. 3C "RSM", causes of shutdown).
fn is_possible(cpu: &crate::Cpu, values: &Values) -> bool {
    let (cr0, cr4, efer) =
        (Cr0(values.get(Field::Cr0)), Cr4(values.get(Field::Cr4)), Efer(values.get(Field::Efer)));
    let long = efer.contains(Efer::LMA);
    let paging = cr0.contains(Cr0::PG);
    cr4.0 & !cpu.model.cr4_bits().0 == 0
        && cr0.0 >> 32 == 0
        && (!paging || cr0.contains(Cr0::PE))
        && (!cr0.contains(Cr0::NW) || cr0.contains(Cr0::CD))
        && long == (efer.contains(Efer::LME) && paging)
        && (!long || cr4.contains(Cr4::PAE))
        && (long || !cr4.contains(Cr4::PCIDE))
}

/// RSM.
pub(crate) fn rsm(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    // Outside SMM, Intel's processors have no such instruction for a guest to exit with (SDM Vol. 3C "Instructions That Cause VM
    // Exits Conditionally"); AMD's ask for the intercept first (APM Vol. 2 "Instruction Intercepts").
    if !x.cpu.smm && x.cpu.model.vendor() == Vendor::Intel {
        return Err(Fault::UD);
    }
    x.unprivileged(Event::Rsm)?;
    if !x.cpu.smm {
        return Err(Fault::UD);
    }
    x.leave_smm()?;
    x.cpu.trap_inhibited = true;
    Ok(Flow::Jumped)
}

/// The area's revision: I/O restart and SMBASE relocation, and which map it is.
const fn revision(vendor: Vendor) -> u64 {
    match vendor {
        Vendor::Intel => 0x3_0101,
        Vendor::Amd => 0x3_0064,
    }
}
