//! Questions about descriptors that never fault for a bad selector: LAR, LSL, VERR, VERW; and ARPL.

use super::descriptors::Descriptor;
use super::flags::ZF;
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Efer, SegmentName, Selector};
use rootmode_mmu::{Access, AccessKind};

impl Exec<'_, '_> {
    /// # Errors
    /// #UD in real and virtual-8086 mode.
    pub(crate) fn require_protected(&self) -> Result {
        if self.cpu.is_protected() { Ok(()) } else { Err(Fault::UD) }
    }

    /// The descriptor of `selector`, if its table has one. System descriptors of long mode must lie in the table with both
    /// halves, and the type field of the upper one must be 0.
    fn find(&mut self, selector: Selector) -> Result<Option<Descriptor>> {
        if selector.is_null() || !self.has_descriptor(selector, 8) {
            return Ok(None);
        }
        let descriptor = self.descriptor(selector, 0, 0)?;
        if self.cpu.efer.contains(Efer::LMA) && !descriptor.rights().contains(AccessRights::S) {
            if !self.has_descriptor(selector, 16) {
                return Ok(None);
            }
            let high = self.read(descriptor.linear.offset(8), 8, Access::implicit(AccessKind::Read))?;
            if high >> 40 & 0x1f != 0 {
                return Ok(None);
            }
        }
        Ok(Some(descriptor))
    }

    /// Whether the table of `selector` has `bytes` bytes for it.
    pub(crate) fn has_descriptor(&self, selector: Selector, bytes: u64) -> bool {
        let ldtr = self.cpu.segment(SegmentName::Ldtr);
        let limit = match selector.is_local() {
            true if !ldtr.rights.is_usable() => return false,
            true => u64::from(ldtr.limit),
            false => u64::from(self.cpu.gdtr.limit),
        };
        selector.offset() + bytes - 1 <= limit
    }

    /// What LAR and LSL may tell: a descriptor of a type in `system` (or code or data) that the privilege levels allow.
    fn visible(&mut self, op: &Decoded, system: u16) -> Result<Option<Descriptor>> {
        self.require_protected()?;
        let selector = Selector(self.get(op, 1, 2)? as u16);
        let found = self.find(selector)?.filter(|descriptor| {
            let rights = descriptor.rights();
            let known = rights.contains(AccessRights::S) || system >> rights.kind() & 1 != 0;
            known && (is_conforming(rights) || rights.dpl() >= self.cpu.cpl.max(selector.rpl()))
        });
        self.set_zero(found.is_some());
        Ok(found)
    }

    fn set_zero(&mut self, on: bool) {
        self.cpu.set_status(ZF, if on { ZF } else { 0 });
    }
}

/// Whether `rights` are those of conforming code.
pub(crate) const fn is_conforming(rights: AccessRights) -> bool {
    rights.contains(AccessRights(AccessRights::S.0 | AccessRights::CODE.0 | AccessRights::EXPAND_DOWN.0))
}

/// LAR. Bits 19:16 are undefined: those of the descriptor, as on real parts. Types that it knows: TSSs, LDT, gates for calls and tasks; in long mode LDT, 64-bit TSS and call gate.
pub(crate) fn lar(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let long = x.cpu.efer.contains(Efer::LMA);
    if let Some(descriptor) = x.visible(op, if long { 0x1a04 } else { 0x1a3e })? {
        x.put(op, 0, op.size, descriptor.raw >> 32 & 0x00ff_ff00)?;
    }
    Ok(Flow::Next)
}

/// LSL. Types that it knows: TSSs and LDT.
pub(crate) fn lsl(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let long = x.cpu.efer.contains(Efer::LMA);
    if let Some(descriptor) = x.visible(op, if long { 0x0a04 } else { 0x0a0e })? {
        x.put(op, 0, op.size, u64::from(descriptor.limit()))?;
    }
    Ok(Flow::Next)
}

/// VERR (`op.immediate` 0) and VERW (1).
pub(crate) fn verify(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_protected()?;
    let selector = Selector(x.get(op, 0, 2)? as u16);
    let found = x.find(selector)?;
    let allowed = found.is_some_and(|descriptor| {
        let rights = descriptor.rights();
        let code = rights.contains(AccessRights::CODE);
        let second = rights.contains(AccessRights::WRITABLE);
        let right = if op.immediate == 1 { !code && second } else { !code || second };
        let near = is_conforming(rights) || rights.dpl() >= x.cpu.cpl.max(selector.rpl());
        rights.contains(AccessRights::S) && right && near
    });
    x.set_zero(allowed);
    Ok(Flow::Next)
}

/// ARPL: raises the destination's RPL to the source's.
pub(crate) fn arpl(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_protected()?;
    // Read first: only a change needs the right to write.
    let destination = x.get(op, 0, 2)?;
    let source = x.get(op, 1, 2)?;
    let raises = destination & 3 < source & 3;
    if raises {
        x.put(op, 0, 2, destination & !3 | source & 3)?;
    }
    x.set_zero(raises);
    Ok(Flow::Next)
}
