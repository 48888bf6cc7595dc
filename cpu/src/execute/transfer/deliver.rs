//! Delivery of exceptions and interrupts: what all modes share, real mode's vector table, and virtual-8086 redirection
//! (SDM Vol. 3A "Interrupt and Exception Handling", SDM Vol. 2A "INT n/INTO/INT3/INT1—Call to Interrupt Procedure").

use super::super::Exec;
use crate::fault::{Fault, Result};
use crate::state::{Activity, Delivery, DeliveryKind};
use rootmode_arch::record::Payload;
use rootmode_arch::{Cr0, Cr4, Dr6, Linear, RFlags, SegmentName, Selector, vector};
use rootmode_mmu::{Access, AccessKind};

/// What a delivery pushes, and the parts of its error codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Where to return to.
    pub(super) rip: u64,
    /// The flags' image.
    pub(super) flags: RFlags,
    /// The event's error code.
    pub(super) error_code: Option<u32>,
    /// INT n, INT3 and INTO: the gate's DPL counts.
    pub(super) software: bool,
    /// The EXT bit of error codes.
    pub(super) ext: u32,
    /// The error code of a fault that is about the IDT entry.
    pub(super) idt_code: u32,
}

impl Exec<'_, '_> {
    /// Delivers `delivery`. Until it is complete, [`Cpu::delivering`](crate::Cpu::delivering) names it.
    ///
    /// # Errors
    /// A fault on the way, while `delivering` still names the event.
    pub(crate) fn deliver(&mut self, delivery: Delivery) -> Result {
        self.cpu.delivering = Some(delivery);
        let software = matches!(delivery.kind, DeliveryKind::Software | DeliveryKind::SoftwareException);
        let ext = u32::from(!software);
        let mut flags = self.cpu.saved_flags();
        if delivery.resumes {
            flags = flags.with(RFlags::RF);
        }
        let next = self.cpu.rip.wrapping_add(u64::from(delivery.length));
        let next = if self.cpu.is_64_bit() { next } else { next & 0xffff_ffff };
        let frame = Frame {
            rip: delivery.return_rip.unwrap_or(next),
            flags,
            error_code: delivery.error_code,
            software,
            ext,
            idt_code: u32::from(delivery.vector) * 8 + 2 + ext,
        };
        if !self.cpu.cr0.contains(Cr0::PE) {
            self.deliver_real(delivery.vector, &frame)?;
        } else if self.is_long() {
            self.deliver_long(delivery.vector, &frame)?;
        } else if delivery.kind == DeliveryKind::Software && flags.contains(RFlags::VM) {
            self.deliver_virtual_8086(delivery.vector, &frame)?;
        } else {
            self.deliver_protected(delivery.vector, &frame)?;
        }
        if self.cpu.mov_ss_shadow {
            // The single-step trap of MOV SS is lost when an event comes in its shadow; its data breakpoints are not.
            self.cpu.pending_debug &= !Dr6::BS.0;
        }
        self.cpu.delivering = None;
        self.cpu.repeating = false;
        self.cpu.sti_shadow = false;
        self.cpu.mov_ss_shadow = false;
        self.cpu.activity = Activity::Active;
        if delivery.blocks_nmis {
            self.cpu.nmi_blocked = true;
        }
        self.cpu.update_attention();
        let payload =
            Payload::Delivery { vector: delivery.vector, error_code: delivery.error_code, rip: frame.rip };
        self.ctx.emit(self.cpu, payload);
        Ok(())
    }

    /// Through the table of far pointers at IDTR's base. No error code is pushed.
    fn deliver_real(&mut self, number: u8, frame: &Frame) -> Result {
        let offset = u64::from(number) * 4;
        if offset + 3 > u64::from(self.cpu.idtr.limit) {
            return Err(Fault::with_code(vector::GP, frame.idt_code));
        }
        let entry = Linear(self.cpu.idtr.base.wrapping_add(offset));
        self.enter_vector(entry, frame, frame.flags.0, RFlags::IF | RFlags::AC)
    }

    /// INT n in virtual-8086 mode. CR4.VME lets a bitmap in the TSS redirect it to the 8086 program's own table at linear
    /// address 0 (SDM Vol. 3A "Class 3—Software Interrupt Handling in Virtual-8086 Mode").
    fn deliver_virtual_8086(&mut self, number: u8, frame: &Frame) -> Result {
        let trusted = frame.flags.iopl() == 3;
        if self.cpu.cr4.contains(Cr4::VME) && self.is_redirected(number)? {
            let entry = Linear(u64::from(number) * 4);
            if trusted {
                return self.enter_vector(entry, frame, frame.flags.0, RFlags::IF);
            }
            let virtual_if = if frame.flags.contains(RFlags::VIF) { RFlags::IF.0 } else { 0 };
            let image = frame.flags.0 & !RFlags::IF.0 | virtual_if | 0x3000;
            return self.enter_vector(entry, frame, image, RFlags::VIF);
        }
        if !trusted {
            return Err(Fault::GP0);
        }
        self.deliver_protected(number, frame)
    }

    /// Whether the interrupt-redirection bitmap, the 32 bytes below the I/O permission map, has a 0 for `number`.
    fn is_redirected(&mut self, number: u8) -> Result<bool> {
        let tr = *self.cpu.segment(SegmentName::Tr);
        let access = Access::implicit(AccessKind::Read);
        if tr.rights.kind() & 8 == 0 || tr.limit < 0x67 {
            return Err(Fault::GP0);
        }
        let map = self.read(Linear(tr.base.wrapping_add(0x66)), 2, access)?;
        let offset = map.wrapping_sub(32).wrapping_add(u64::from(number >> 3));
        if offset > u64::from(tr.limit) {
            return Err(Fault::GP0);
        }
        let bits = self.read(Linear(tr.base.wrapping_add(offset)), 1, access)?;
        Ok(bits >> (number & 7) & 1 == 0)
    }

    /// Pushes a frame of 2-byte slots and goes to the far pointer at `entry`; clears TF, RF and `cleared`.
    fn enter_vector(&mut self, entry: Linear, frame: &Frame, image: u64, cleared: RFlags) -> Result {
        let pointer = self.read(entry, 4, Access::implicit(AccessKind::Read))?;
        let (offset, selector) = (pointer & 0xffff, Selector((pointer >> 16) as u16));
        let mut stack = self.current_stack(0);
        self.check_room(&stack, 3, 2)?;
        let code = self.real_segment(SegmentName::Cs, selector);
        self.check_code_offset(&code, offset, Fault::GP0)?;
        let old = self.cpu.segment(SegmentName::Cs).selector;
        self.push_all(&mut stack, &[image, u64::from(old.0), frame.rip], 2)?;
        *self.cpu.segment_mut(SegmentName::Cs) = code;
        self.take_pointer(&stack);
        self.cpu.rip = offset;
        let flags = self.cpu.rflags().without(RFlags::TF | RFlags::RF | cleared);
        self.cpu.set_rflags(flags);
        Ok(())
    }
}
