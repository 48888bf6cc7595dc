//! Hostile hardware: the processor keeps translations as long as it may, drops some when nobody asked, and reports uses of
//! stale ones that the manuals do not allow ([`rootmode_mmu::stale`]), and of memory that it may keep on-chip.

use super::Exec;
use rootmode_arch::record::{HeldRegion, HeldUse, Payload, Place};
use rootmode_arch::{HostPhysical, Linear, Site};
use rootmode_mmu::{Access, Lookup};

/// Alternatives when a translation is cached: 1 to 4 evict something in that place of its set, any other number nothing.
const EVICTIONS: u64 = 64;

impl Exec<'_, '_> {
    const fn place(&self) -> Place {
        Place { tick: self.cpu.tick, vcpu: self.cpu.index, rip: self.cpu.rip }
    }

    /// An instruction or a delivery begins: stores from now on are its own.
    pub(crate) fn note_instruction(&mut self) {
        let place = self.place();
        let cpu = &mut *self.cpu;
        cpu.tlb.note_instruction(place, (cpu.paging.cr3.0, cpu.published.second_stage.root_tag()));
        self.ctx.memory.set_writer(Some(place));
    }

    /// `found` is the translation that an access to `linear` uses now.
    #[cold]
    pub(super) fn look_for_stale_use(&mut self, linear: Linear, access: Access, found: Lookup) {
        let place = self.place();
        let (cpu, memory) = (&mut *self.cpu, &mut *self.ctx.memory);
        let walk = (&cpu.paging, &cpu.published.second_stage);
        let stale = cpu.tlb.stale_use(memory, walk, (cpu.tag, linear), (access, found), place);
        if access.kind.is_write() {
            memory.note_store(found.host, cpu.tag, linear, place.tick);
        }
        if let Some(stale) = stale {
            self.ctx.emit(self.cpu, Payload::Stale(stale));
        }
        self.look_for_held_region(access, found.host);
    }

    /// An access goes to `host`: nobody may touch the region of an active VMCS, but for a look at its first two words, the
    /// revision identifier and the VMX-abort indicator.
    fn look_for_held_region(&mut self, access: Access, host: HostPhysical) {
        let write = access.kind.is_write();
        if !write && host.page_offset() < 8 {
            return;
        }
        if let Some(since) = self.ctx.memory.held_since(host, self.cpu.rip) {
            let how = if write { HeldUse::Written } else { HeldUse::Read };
            let held = HeldRegion { rip: self.cpu.rip, region: host.page_base(), how, since };
            self.ctx.emit(self.cpu, Payload::Held(held));
        }
    }

    /// The translation of `linear` is about to be cached: something else may go, for no reason that software knows.
    pub(super) fn draw_eviction(&mut self, linear: Linear) {
        let drawn = self.ctx.choose(self.cpu, Site::TlbEviction, EVICTIONS);
        if let Ok(way @ 1..=4) = usize::try_from(drawn) {
            self.cpu.tlb.evict(linear, way - 1);
        }
    }

    /// The translation of `linear` was just cached by a walk for `access`.
    pub(super) fn note_origin(&mut self, linear: Linear, access: Access) {
        let place = self.place();
        let (cpu, memory) = (&mut *self.cpu, &mut *self.ctx.memory);
        let walk = (&cpu.paging, &cpu.published.second_stage);
        cpu.tlb.note_origin(memory, walk, (cpu.tag, linear), access, place);
    }
}
