//! The host's state between VMRUN and #VMEXIT (APM Vol. 2 (24593 rev. 3.43) "VMRUN Instruction", "VM_HSAVE_PA MSR").
//!
//! A tame processor writes the host save area at VMRUN and reads it at #VMEXIT. The manual leaves to the processor what of it
//! is in memory in between: hostile hardware chooses whether the area is written at VMRUN or, the state being kept on the
//! chip until then, at #VMEXIT. Software that writes the area while a guest runs relies on more than it was promised.

use super::page::{Fields as _, Page};
use super::{Svm, state};
use crate::vmcb::{Area, Field};
use rootmode_arch::record::{Payload, TrustedField};
use rootmode_arch::{HostPhysical, Site};
use rootmode_cpu::{Context, Cpu};
use rootmode_mmu::{Digest, PhysicalMemory};

/// What hostile hardware knows of the host's state while a guest runs.
#[derive(Clone, Debug)]
pub(super) struct HostArea {
    at: HostPhysical,
    /// It is kept on the chip: the area was not written.
    held: bool,
    /// The host's state.
    state: [u8; 4096],
    /// What the area holds if nobody writes it.
    memory: [u8; 4096],
}

impl HostArea {
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.at.0, self.held.into()]);
        digest.bytes(&self.state);
    }

    /// The first field that somebody has written since VMRUN, with its values then and now.
    fn changed(&mut self, memory: &mut PhysicalMemory) -> Option<(Field, u64, u64)> {
        let before: Page<'_> = Page::Open(&mut self.memory);
        let now = Page::new(memory, self.at);
        let fields = Field::all().filter(|field| field.row().area == Area::Save && field.size() <= 8);
        let mut values = fields.map(|field| (field, before.value(field), now.value(field)));
        values.find(|(_, before, now)| before != now)
    }
}

impl Svm {
    /// Saves the host's state.
    pub(super) fn save_host(&mut self, cpu: &Cpu, ctx: &mut Context<'_>) {
        let at = self.host_save(cpu);
        if ctx.memory.ledger().is_none() {
            state::save_host(cpu, &mut Page::new(ctx.memory, at));
            return;
        }
        let mut memory = [0; 4096];
        ctx.memory.read(at, &mut memory);
        let mut host = memory;
        state::save_host(cpu, &mut Page::Open(&mut host));
        let held = ctx.choose(cpu, Site::HostSave, 2) != 0;
        if !held {
            ctx.memory.write(at, &host);
            memory = host;
        }
        self.host_area = Some(Box::new(HostArea { at, held, state: host, memory }));
    }

    /// Loads the host's state, with the branch records if the guest had its own.
    pub(super) fn load_host(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, branches: bool) {
        let load = |cpu: &mut Cpu, area: &Page<'_>| {
            if branches {
                state::load_branches(cpu, area);
            }
            state::load_host(cpu, area);
        };
        let Some(mut area) = self.host_area.take() else {
            load(cpu, &Page::new(ctx.memory, self.host_save(cpu)));
            return;
        };
        if let Some((field, kept, written)) = area.changed(ctx.memory) {
            let field = Some(field.row().offset);
            ctx.emit(cpu, Payload::Trusted(TrustedField { vmcb: area.at, bits: 0, field, kept, written }));
        }
        if area.held {
            ctx.memory.write(area.at, &area.state);
        }
        load(cpu, &Page::new(ctx.memory, area.at));
    }
}
