//! [`Stack`]: a stack that a transfer pushes to before it becomes the current one, and the stacks that a TSS names.

use super::super::Exec;
use super::super::access::within_limit;
use super::super::flags::mask;
use super::{is_stack, selector_code};
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Gpr, Linear, Segment, SegmentName, Selector, vector};
use rootmode_mmu::{Access, AccessKind};

/// A stack and its pointer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) segment: Segment,
    pub(super) pointer: u64,
    /// Bytes of the stack pointer: 2, 4 or 8.
    pub(super) width: u8,
    /// At which privilege level it is used.
    pub(super) level: u8,
    /// Error code of #SS when something does not fit.
    pub(super) code: u32,
}

impl Stack {
    /// A stack outside 64-bit mode.
    pub(super) const fn legacy(segment: Segment, pointer: u64, level: u8, code: u32) -> Self {
        let width = if segment.rights.contains(AccessRights::DB) { 4 } else { 2 };
        Self { segment, pointer: pointer & mask(width), width, level, code }
    }

    const fn below(&self, bytes: u64) -> u64 {
        self.pointer.wrapping_sub(bytes) & mask(self.width)
    }
}

impl Exec<'_, '_> {
    /// The stack in use; #SS(`code`) when something does not fit.
    pub(super) const fn current_stack(&self, code: u32) -> Stack {
        Stack {
            segment: *self.cpu.segment(SegmentName::Ss),
            pointer: self.stack_pointer(),
            width: self.stack_width(),
            level: self.cpu.cpl,
            code,
        }
    }

    /// The linear address of the slot `bytes` below the stack pointer.
    fn slot(&self, stack: &Stack, bytes: u64, size: u8) -> Result<Linear> {
        let (offset, size) = (stack.below(bytes), u64::from(size));
        let fault = Fault::with_code(vector::SS, stack.code);
        if stack.width == 8 {
            let (width, at) = (self.cpu.linear_width(), Linear(offset));
            let canonical = at.is_canonical(width) && at.offset(size - 1).is_canonical(width);
            return if canonical { Ok(at) } else { Err(fault) };
        }
        if !within_limit(&stack.segment, offset, size) {
            return Err(fault);
        }
        Ok(Linear(stack.segment.base.wrapping_add(offset) & 0xffff_ffff))
    }

    /// Checks that `count` values of `size` bytes can be pushed. Nothing is written.
    ///
    /// # Errors
    /// #SS beyond the limit, #PF.
    pub(super) fn check_room(&mut self, stack: &Stack, count: usize, size: u8) -> Result {
        let mut slots = [Linear(0); 48];
        for (index, slot) in slots.iter_mut().enumerate().take(count) {
            *slot = self.slot(stack, (index as u64 + 1) * u64::from(size), size)?;
        }
        let access = stack_access(stack);
        for slot in &slots[..count] {
            self.translate(*slot, access)?;
            self.translate(slot.offset(u64::from(size) - 1), access)?;
        }
        Ok(())
    }

    /// Pushes `values` in this order, after [`Self::check_room`].
    pub(super) fn push_all(&mut self, stack: &mut Stack, values: &[u64], size: u8) -> Result {
        let access = stack_access(stack);
        for value in values {
            let at = self.slot(stack, u64::from(size), size)?;
            self.write(at, size, *value, access)?;
            stack.pointer = stack.below(u64::from(size));
        }
        Ok(())
    }

    /// Makes `stack`'s pointer the current one. SS must be loaded already.
    pub(super) const fn take_pointer(&mut self, stack: &Stack) {
        if stack.width == 8 {
            self.cpu.gpr[Gpr::Rsp as usize] = stack.pointer;
        } else {
            self.put_register(Gpr::Rsp as u8, stack.width, stack.pointer);
        }
    }

    /// The stack for privilege level `level` that the 16- or 32-bit TSS names.
    ///
    /// # Errors
    /// #TS with the TSS's or the stack's selector, #SS for a segment that is not present; `ext` goes into the codes.
    pub(super) fn inner_stack(&mut self, level: u8, ext: u32) -> Result<Stack> {
        let tr = *self.cpu.segment(SegmentName::Tr);
        let wide = tr.rights.kind() & 8 != 0;
        let (offset, size) = if wide { (4 + u64::from(level) * 8, 4) } else { (2 + u64::from(level) * 4, 2) };
        // The pointer and the 2 bytes of the selector.
        if offset + u64::from(size) + 1 > u64::from(tr.limit) {
            return Err(Fault::with_code(vector::TS, selector_code(tr.selector) | ext));
        }
        let at = Linear(tr.base.wrapping_add(offset));
        let access = Access::implicit(AccessKind::Read);
        let pointer = self.read(at, size, access)?;
        let selector = Selector(self.read(at.offset(u64::from(size)), 2, access)? as u16);
        if selector.is_null() {
            return Err(Fault::with_code(vector::TS, ext));
        }
        let code = selector_code(selector) | ext;
        let descriptor = self.descriptor(selector, vector::TS, ext)?;
        let rights = descriptor.rights();
        if selector.rpl() != level || rights.dpl() != level || !is_stack(rights) {
            return Err(Fault::with_code(vector::TS, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::SS, code));
        }
        self.mark(descriptor, 1)?;
        Ok(Stack::legacy(descriptor.segment(selector, AccessRights::ACCESSED), pointer, level, code))
    }
}

const fn stack_access(stack: &Stack) -> Access {
    Access { kind: AccessKind::Write, user: stack.level == 3, smap_override: false }
}
