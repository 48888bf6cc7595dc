//! Operands: registers, and memory through translation. Faults come before any commit.

use super::Exec;
use super::flags::mask;
use super::watched::Watched;
use crate::decode::{Decoded, NO_REGISTER, Operand, RIP_BASE};
use crate::fault::{Fault, Result};
use crate::state::{ApicWindow, Attention};
use rootmode_arch::event::{GuestPhysicalAccess, MemoryOperand};
use rootmode_arch::{
    AccessRights, Event, EventClass, Gpr, HostPhysical, Linear, RFlags, Segment, SegmentName, Stage, Vendor,
    vector,
};
use rootmode_mmu::{Access, AccessKind, Bank, Lookup, PageKind, Translation, WalkFault, translate};

impl Exec<'_, '_> {
    /// An explicit data access at the current privilege level.
    pub(crate) const fn data(&self, kind: AccessKind) -> Access {
        Access::data(kind, self.cpu.cpl, self.cpu.control_flags().contains(RFlags::AC))
    }

    /// Translates one address, through the TLB.
    #[inline]
    pub(crate) fn translate(&mut self, linear: Linear, access: Access) -> Result<Lookup> {
        let cpu = &*self.cpu;
        let at = match cpu.tlb.lookup(&cpu.paging, cpu.tag, linear, access) {
            Some(found) => found,
            None => self.translate_slowly(linear, access)?,
        };
        if self.cpu.tlb.remembers_origins() {
            self.look_for_stale_use(linear, access, at);
        } else {
            self.keep_shortcut(linear, access, at);
        }
        Ok(at)
    }

    /// Lets the engine go straight to this page from now on, if nothing but RAM is there.
    #[inline]
    fn keep_shortcut(&mut self, linear: Linear, access: Access, at: Lookup) {
        let direct = at.kind == PageKind::Ram || at.kind == PageKind::Shadow && !access.kind.is_write();
        if !direct || self.cpu.published.is_apic(&at) {
            return;
        }
        // An address of a system register may have bits that would be masked in a program's pointer.
        if self.cpu.masks_pointers && self.cpu.paging.untag(linear) != linear {
            return;
        }
        let bank = self.bank_of(access);
        if let Some(offset) = self.ctx.memory.offset(at.host.page_base()) {
            self.cpu.tlb.keep(bank, access.kind, linear, offset);
        }
    }

    /// Whose shortcuts an access uses.
    #[inline]
    fn bank_of(&self, access: Access) -> Bank {
        if access.user {
            Bank::User
        } else if access.smap_override && self.cpu.paging.smap && access.kind != AccessKind::Execute {
            Bank::SupervisorOverride
        } else {
            Bank::Supervisor
        }
    }

    /// Reads through a shortcut. `None`: there is none.
    #[inline]
    fn read_quickly(&self, linear: Linear, size: u8, access: Access) -> Option<u64> {
        let (key, bytes) = (self.cpu.tlb.key(self.bank_of(access)), usize::from(size));
        let place = match access.kind {
            AccessKind::Read => self.cpu.tlb.quick_read(key, linear, bytes)?,
            // A read-modify-write reads what it may write.
            AccessKind::Write => self.cpu.tlb.quick_write(key, linear, bytes)?,
            _ => return None,
        };
        let memory = &*self.ctx.memory;
        Some(match size {
            1 => u64::from(u8::from_le_bytes(memory.load_at(place)?)),
            2 => u64::from(u16::from_le_bytes(memory.load_at(place)?)),
            4 => u64::from(u32::from_le_bytes(memory.load_at(place)?)),
            8 => u64::from_le_bytes(memory.load_at(place)?),
            _ => return None,
        })
    }

    /// Writes through a shortcut. False: nothing happened.
    #[inline]
    fn write_quickly(&mut self, linear: Linear, size: u8, value: u64, access: Access) -> bool {
        if access.kind != AccessKind::Write {
            return false;
        }
        let key = self.cpu.tlb.key(self.bank_of(access));
        let Some(place) = self.cpu.tlb.quick_write(key, linear, usize::from(size)) else { return false };
        let memory = &mut *self.ctx.memory;
        match size {
            1 => memory.store_across(place, (value as u8).to_le_bytes()),
            2 => memory.store_across(place, (value as u16).to_le_bytes()),
            4 => memory.store_across(place, (value as u32).to_le_bytes()),
            8 => memory.store_across(place, value.to_le_bytes()),
            _ => false,
        }
    }

    #[cold]
    #[inline(never)]
    fn translate_slowly(&mut self, linear: Linear, access: Access) -> Result<Lookup> {
        match self.walk(linear, access)? {
            Ok(mut translation) => {
                translation.host = self.ctx.memory.on_lines(translation.host);
                let cpu = &mut *self.cpu;
                let is_apic = cpu.apic_page() == Some(translation.host.page_base());
                let kind = if is_apic { PageKind::Apic } else { self.ctx.memory.kind(translation.host) };
                let origins = cpu.tlb.remembers_origins();
                if origins {
                    self.draw_eviction(linear);
                }
                let cpu = &mut *self.cpu;
                cpu.tlb.fill(cpu.tag, linear, &translation, kind);
                if origins {
                    self.note_origin(linear, access);
                }
                Ok(Lookup { host: translation.host, guest: translation.guest, kind })
            }
            Err(fault) => {
                let cpu = &mut *self.cpu;
                // A refused access drops what was cached for the page.
                cpu.tlb.drop_entry(cpu.tag, linear);
                Err(match fault {
                    WalkFault::Page(code) => Fault::page(linear, code),
                    WalkFault::SecondStage(refused) => Fault::SecondStage(refused),
                    WalkFault::LogFull => Fault::LogFull,
                })
            }
        }
    }

    /// Walks the tables for `linear`. Under an extension that wants it, pages that become dirty are logged, and entries on
    /// the APIC-access page are accesses to that.
    fn walk(
        &mut self,
        linear: Linear,
        access: Access,
    ) -> Result<core::result::Result<Translation, WalkFault>> {
        let cpu = &mut *self.cpu;
        let second = cpu.published.second_stage;
        let apic = match cpu.published.apic_access {
            Some(ApicWindow::Host(page)) => Some(page),
            Some(ApicWindow::Guest(_)) | None => None,
        };
        let log = cpu.published.modification_log.as_mut();
        if apic.is_none() && log.is_none() {
            let context = cpu.translation_context();
            return Ok(cpu.walks.translate(self.ctx.memory, context, (&cpu.paging, &second), linear, access));
        }
        let mut watched = Watched { memory: self.ctx.memory, apic, log, met: false };
        let answer = translate(&mut watched, &cpu.paging, &second, linear, access);
        if watched.met {
            let walk = GuestPhysicalAccess {
                linear: Some(linear),
                read: true,
                table_walk: true,
                permissions: 7,
                ..Default::default()
            };
            let in_delivery = self.cpu.delivering.is_some();
            let event = Event::ApicAccess { access: walk, size: 8, in_delivery };
            self.offer(EventClass::ApicAccess, Stage::AfterOperands, |_| event)?;
        }
        Ok(answer)
    }

    /// Reads 1 to 8 bytes.
    #[inline]
    pub(crate) fn read(&mut self, linear: Linear, size: u8, access: Access) -> Result<u64> {
        if self.cpu.checks_data {
            self.check_data(linear, size, access)?;
        } else if let Some(value) = self.read_quickly(linear, size, access) {
            return Ok(value);
        }
        self.read_checked(linear, size, access)
    }

    /// [`Self::read`] of an operand, or of a part of it, after [`Self::check_data`].
    #[inline]
    pub(crate) fn read_checked(&mut self, linear: Linear, size: u8, access: Access) -> Result<u64> {
        if linear.page_offset() + u64::from(size) <= 4096 {
            let at = self.translate(linear, access)?;
            if at.kind == PageKind::Ram && !self.cpu.published.is_apic(&at) {
                let memory = &*self.ctx.memory;
                return Ok(match size {
                    1 => u64::from(memory.read_u8(at.host)),
                    2 => u64::from(memory.read_u16(at.host)),
                    4 => u64::from(memory.read_u32(at.host)),
                    8 => memory.read_u64(at.host),
                    _ => {
                        let mut bytes = [0; 8];
                        memory.read(at.host, &mut bytes[..usize::from(size)]);
                        u64::from_le_bytes(bytes)
                    }
                });
            }
            return self.read_special(at, linear, size, access);
        }
        let low_size = (4096 - linear.page_offset()) as u8;
        let high = Linear(linear.0.wrapping_add(u64::from(low_size)));
        // Both pages are translated before a device sees anything.
        let at_low = self.translate(linear, access)?;
        let at_high = self.translate(high, access)?;
        let low = self.read_special(at_low, linear, low_size, access)?;
        let high = self.read_special(at_high, high, size - low_size, access)?;
        Ok(low | high << (8 * low_size))
    }

    /// Writes 1 to 8 bytes.
    #[inline]
    pub(crate) fn write(&mut self, linear: Linear, size: u8, value: u64, access: Access) -> Result {
        if self.cpu.checks_data {
            self.check_data(linear, size, access)?;
        } else if self.write_quickly(linear, size, value, access) {
            return Ok(());
        }
        self.write_checked(linear, size, value, access)
    }

    /// [`Self::write`] of an operand, or of a part of it, after [`Self::check_data`].
    #[inline]
    pub(crate) fn write_checked(&mut self, linear: Linear, size: u8, value: u64, access: Access) -> Result {
        if linear.page_offset() + u64::from(size) <= 4096 {
            let at = self.translate(linear, access)?;
            if at.kind == PageKind::Ram && !self.cpu.published.is_apic(&at) {
                let memory = &mut *self.ctx.memory;
                match size {
                    1 => memory.write_u8(at.host, value as u8),
                    2 => memory.write_u16(at.host, value as u16),
                    4 => memory.write_u32(at.host, value as u32),
                    8 => memory.write_u64(at.host, value),
                    _ => memory.write(at.host, &value.to_le_bytes()[..usize::from(size)]),
                }
                return Ok(());
            }
            return self.write_special(at, linear, size, value);
        }
        let low_size = (4096 - linear.page_offset()) as u8;
        let high = Linear(linear.0.wrapping_add(u64::from(low_size)));
        let at_low = self.translate(linear, access)?;
        let at_high = self.translate(high, access)?;
        self.write_special(at_low, linear, low_size, value)?;
        self.write_special(at_high, high, size - low_size, value >> (8 * low_size))
    }

    /// Alignment and data breakpoints of an operand, while [`Cpu::checks_data`](crate::Cpu) says so.
    ///
    /// # Errors
    /// #AC(0) for an unaligned access of CPL 3, before anything is translated.
    #[cold]
    #[inline(never)]
    pub(crate) fn check_data(&mut self, linear: Linear, size: u8, access: Access) -> Result {
        if access.user && self.is_misaligned(linear, size.into()) {
            return Err(Fault::with_code(vector::AC, 0));
        }
        self.match_breakpoints(linear, size, access);
        Ok(())
    }

    /// Data breakpoints of an operand whose alignment is not checked.
    pub(crate) fn match_breakpoints(&mut self, linear: Linear, size: u8, access: Access) {
        let write = access.kind == AccessKind::Write;
        self.cpu.matched_breakpoints |= self.cpu.data_matches(linear, size, write);
    }

    /// Reads `W` words of 8 bytes, `N` bytes together, at once. `None`: there is no shortcut to them, or the access is checked;
    /// [`Self::read`] must do it.
    #[inline]
    pub(crate) fn load_words<const W: usize, const N: usize>(
        &self,
        linear: Linear,
        access: Access,
    ) -> Option<[u64; W]> {
        if self.cpu.checks_data {
            return None;
        }
        let place = self.cpu.tlb.quick_read(self.cpu.tlb.key(self.bank_of(access)), linear, N)?;
        let bytes = self.ctx.memory.load_at::<N>(place)?;
        let slots = bytes.as_chunks().0;
        Some(core::array::from_fn(|n| u64::from_le_bytes(slots[n])))
    }

    /// Reads `W` words of 8 bytes, `N` bytes together, upwards from `linear`.
    #[inline]
    pub(crate) fn read_words<const W: usize, const N: usize>(
        &mut self,
        linear: Linear,
        access: Access,
    ) -> Result<[u64; W]> {
        if let Some(words) = self.load_words::<W, N>(linear, access) {
            return Ok(words);
        }
        let mut words = [0; W];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.read(linear.offset(8 * n as u64), 8, access)?;
        }
        Ok(words)
    }

    /// Writes `W` words of 8 bytes, `N` bytes together, at once. False, and nothing happened: there is no shortcut to them, or
    /// the access is checked.
    #[inline]
    fn store_quickly<const W: usize, const N: usize>(
        &mut self,
        linear: Linear,
        words: &[u64],
        access: Access,
    ) -> bool {
        let Ok(words) = <&[u64; W]>::try_from(words) else { return false };
        if self.cpu.checks_data {
            return false;
        }
        let key = self.cpu.tlb.key(self.bank_of(access));
        if let Some(place) = self.cpu.tlb.quick_write(key, linear, N)
            && let Some(bytes) = self.ctx.memory.open_at::<N>(place)
        {
            bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
            return true;
        }
        false
    }

    /// Writes 8-byte words upwards from `linear`, all or nothing (at most 4096 bytes).
    pub(crate) fn write_words(&mut self, linear: Linear, words: &[u64], access: Access) -> Result {
        // The frames of 64-bit mode's events.
        if self.store_quickly::<5, 40>(linear, words, access)
            || self.store_quickly::<6, 48>(linear, words, access)
        {
            return Ok(());
        }
        let last = linear.offset(words.len() as u64 * 8 - 1);
        self.translate(linear, access)?;
        if last.page_base() != linear.page_base() {
            self.translate(last.page_base(), access)?;
        }
        for (index, word) in words.iter().enumerate() {
            self.write(linear.offset(index as u64 * 8), 8, *word, access)?;
        }
        Ok(())
    }

    /// Offers an access to the APIC-access page, and answers where it goes instead.
    fn apic_access(&mut self, at: Lookup, access: GuestPhysicalAccess, size: u8) -> Result<Lookup> {
        if !self.cpu.published.is_apic(&at) {
            return Ok(at);
        }
        let access = GuestPhysicalAccess { address: at.guest, permissions: 7, ..access };
        let in_delivery = self.cpu.delivering.is_some();
        let event = Event::ApicAccess { access, size, in_delivery };
        let instead = self.offer(EventClass::ApicAccess, Stage::AfterOperands, |_| event)?;
        Ok(instead.map_or(at, |address| {
            let host = HostPhysical(address);
            Lookup { host, kind: self.ctx.memory.kind(host), ..at }
        }))
    }

    /// A fetch from the APIC-access page, which always exits.
    #[cold]
    pub(crate) fn fetch_from_apic_page(&mut self, at: Lookup, linear: Linear) -> Result {
        let fetch = GuestPhysicalAccess { linear: Some(linear), fetch: true, ..Default::default() };
        self.apic_access(at, fetch, 1).map(drop)
    }

    #[cold]
    fn read_special(&mut self, at: Lookup, linear: Linear, size: u8, access: Access) -> Result<u64> {
        // The read of a read-modify-write is decided with the write.
        let write = access.kind.is_write();
        let read = GuestPhysicalAccess { linear: Some(linear), read: true, write, ..Default::default() };
        let at = self.apic_access(at, read, size)?;
        if at.kind == PageKind::Mmio {
            let tick = self.cpu.tell_time();
            let value = self.ctx.bus.read_mmio(at.host, size, tick, self.ctx.effects);
            self.note_effects();
            return Ok(value & mask(size));
        }
        if at.kind == PageKind::Apic {
            return Ok(self.cpu.read_apic_page(at.host, size));
        }
        let mut bytes = [0; 8];
        self.ctx.memory.read(at.host, &mut bytes[..usize::from(size)]);
        Ok(u64::from_le_bytes(bytes))
    }

    #[cold]
    fn write_special(&mut self, at: Lookup, linear: Linear, size: u8, value: u64) -> Result {
        let write = GuestPhysicalAccess { linear: Some(linear), write: true, ..Default::default() };
        let at = self.apic_access(at, write, size)?;
        if at.kind == PageKind::Mmio {
            let tick = self.cpu.tell_time();
            self.ctx.bus.write_mmio(at.host, size, value & mask(size), tick, self.ctx.effects);
            self.note_effects();
        } else if at.kind == PageKind::Apic {
            self.cpu.write_apic_page(at.host, size, value & mask(size));
        } else {
            self.ctx.memory.write(at.host, &value.to_le_bytes()[..usize::from(size)]);
        }
        Ok(())
    }

    /// After a device access: what it caused is applied at the next boundary.
    pub(crate) fn note_effects(&mut self) {
        if !self.ctx.effects.is_empty() {
            self.cpu.attention.0 |= Attention::EFFECTS;
        }
    }

    /// The effective address of the memory operand, before segmentation.
    #[inline]
    pub(crate) fn effective(&self, op: &Decoded) -> u64 {
        let m = &op.memory;
        let mut address = m.displacement;
        if m.base < 16 {
            address = address.wrapping_add(self.cpu.gpr[m.base as usize & 15]);
        } else if m.base == RIP_BASE {
            address = address.wrapping_add(self.cpu.rip);
        }
        if m.index != NO_REGISTER {
            address = address.wrapping_add(self.cpu.gpr[m.index as usize & 15] << m.scale);
        }
        address & mask(m.address_size)
    }

    /// The linear address of the memory operand; `bytes` long.
    ///
    /// # Errors
    /// As [`Self::segmented`].
    #[inline]
    pub(crate) fn linear(&self, op: &Decoded, bytes: u64, kind: AccessKind) -> Result<Linear> {
        let offset = self.effective(op);
        self.segmented(op.memory.segment, offset, bytes, kind)
    }

    /// The linear address of `bytes` bytes at `offset` in `segment`, for an access of `kind`, without metadata
    /// (SDM Vol. 3A "Linear-Address Masking").
    ///
    /// # Errors
    /// #SS(0) through the stack segment, else #GP(0): not canonical in 64-bit mode; elsewhere an unusable segment, one
    /// that does not allow the access, or bytes beyond its limit (SDM Vol. 3A "Limit Checking", "Type Checking").
    #[inline]
    pub(crate) fn segmented(
        &self,
        segment: SegmentName,
        offset: u64,
        bytes: u64,
        kind: AccessKind,
    ) -> Result<Linear> {
        if !self.cpu.is_64_bit() {
            return self.limited(segment, offset, bytes, kind);
        }
        let width = self.cpu.linear_width();
        let base = match segment {
            SegmentName::Fs | SegmentName::Gs => {
                // AMD's parts also look at the offset alone.
                if !Linear(offset).is_canonical(width) && self.cpu.model.vendor() == Vendor::Amd {
                    return Err(Fault::GP0);
                }
                self.cpu.segment(segment).base
            }
            _ => 0,
        };
        let mut linear = Linear(base.wrapping_add(offset));
        if self.cpu.masks_pointers {
            linear = self.cpu.paging.untag(linear);
        }
        let begins = linear.is_canonical(width);
        if begins && linear.offset(bytes - 1).is_canonical(width) {
            return Ok(linear);
        }
        // Intel's parts look at the alignment before they look at the end.
        if begins && self.cpu.model.vendor() == Vendor::Intel && self.is_misaligned(linear, bytes) {
            return Err(Fault::with_code(vector::AC, 0));
        }
        Err(outside(segment))
    }

    /// Whether an operand of user mode raises #AC(0). Intel's parts do not look at operands of more than 8 bytes, which the SDM
    /// leaves to them (Vol. 2B "MOVUPS—Move Unaligned Packed Single-Precision Floating-Point Values").
    fn is_misaligned(&self, linear: Linear, bytes: u64) -> bool {
        let looks = bytes <= 8 || self.cpu.model.vendor() == Vendor::Amd;
        looks && self.cpu.checks_alignment() && linear.0 & (bytes - 1) != 0
    }

    /// [`Self::segmented`] outside 64-bit mode.
    fn limited(&self, name: SegmentName, offset: u64, bytes: u64, kind: AccessKind) -> Result<Linear> {
        let segment = self.cpu.segment(name);
        let rights = segment.rights;
        if self.cpu.is_protected() {
            let code = rights.contains(AccessRights::CODE);
            // Bit 1 says writable for data and readable for code.
            let second = rights.contains(AccessRights::WRITABLE);
            let allowed = match kind {
                AccessKind::Write => !code && second,
                _ => !code || second,
            };
            if !rights.is_usable() || !allowed {
                return Err(outside(name));
            }
        }
        let inside = within_limit(segment, offset, bytes);
        if inside { Ok(Linear(segment.base.wrapping_add(offset) & 0xffff_ffff)) } else { Err(outside(name)) }
    }

    /// Bytes of the stack pointer: 8 in 64-bit mode, else 4 or 2 by the stack segment's B flag.
    #[inline]
    pub(crate) const fn stack_width(&self) -> u8 {
        if self.cpu.is_64_bit() {
            8
        } else if self.cpu.segment(SegmentName::Ss).rights.contains(AccessRights::DB) {
            4
        } else {
            2
        }
    }

    /// The stack pointer, as wide as the stack is.
    #[inline]
    pub(crate) const fn stack_pointer(&self) -> u64 {
        self.cpu.gpr[Gpr::Rsp as usize] & mask(self.stack_width())
    }

    /// Moves the stack pointer to `value`; what lies beyond the stack's width stays as it is.
    #[inline]
    pub(crate) const fn set_stack_pointer(&mut self, value: u64) {
        let width = self.stack_width();
        if width == 2 {
            self.put_register(Gpr::Rsp as u8, 2, value);
        } else {
            self.cpu.gpr[Gpr::Rsp as usize] = value & mask(width);
        }
    }

    /// Operand `n` as a value of `size` bytes.
    #[inline]
    pub(crate) fn get(&mut self, op: &Decoded, n: usize, size: u8) -> Result<u64> {
        Ok(match op.operands[n] {
            Operand::Register(r) => self.cpu.gpr[r as usize & 15] & mask(size),
            Operand::High(r) => self.cpu.gpr[r as usize & 15] >> 8 & 0xff,
            Operand::Immediate => op.immediate & mask(size),
            Operand::Memory => {
                let linear = self.linear(op, u64::from(size), AccessKind::Read)?;
                let access = self.data(AccessKind::Read);
                self.read(linear, size, access)?
            }
            _ => return Err(Fault::UD),
        })
    }

    /// Operand 0 as the value of a read-modify-write: a memory operand must be writable.
    #[inline]
    pub(crate) fn get_for_write(&mut self, op: &Decoded, size: u8) -> Result<u64> {
        if op.operands[0] == Operand::Memory {
            let linear = self.linear(op, u64::from(size), AccessKind::Write)?;
            let access = self.data(AccessKind::Write);
            let value = self.read(linear, size, access)?;
            self.offer_bus_lock(op, linear, size)?;
            return Ok(value);
        }
        self.get(op, 0, size)
    }

    /// Writes operand `n`. 32-bit register writes clear the upper half.
    #[inline]
    pub(crate) fn put(&mut self, op: &Decoded, n: usize, size: u8, value: u64) -> Result {
        match op.operands[n] {
            Operand::Register(r) => self.put_register(r, size, value),
            Operand::High(r) => {
                let register = &mut self.cpu.gpr[r as usize & 15];
                *register = *register & !0xff00 | (value & 0xff) << 8;
            }
            Operand::Memory => {
                let linear = self.linear(op, u64::from(size), AccessKind::Write)?;
                let access = self.data(AccessKind::Write);
                self.write(linear, size, value, access)?;
            }
            _ => return Err(Fault::UD),
        }
        Ok(())
    }

    /// Writes the low `size` bytes of a register; 32-bit writes clear the upper half.
    #[inline]
    pub(crate) const fn put_register(&mut self, number: u8, size: u8, value: u64) {
        let register = &mut self.cpu.gpr[number as usize & 15];
        *register = match size {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => *register & !mask(size) | value & mask(size),
        };
    }

    /// Pushes one stack slot of `size` bytes.
    #[inline]
    pub(crate) fn push(&mut self, value: u64, size: u8) -> Result {
        self.push_part(value, size, size)
    }

    /// Pushes one stack slot of `size` bytes, of which the lower `written` bytes are accessed.
    #[inline]
    pub(crate) fn push_part(&mut self, value: u64, size: u8, written: u8) -> Result {
        let pointer = self.stack_pointer().wrapping_sub(u64::from(size)) & mask(self.stack_width());
        let linear = self.segmented(SegmentName::Ss, pointer, u64::from(written), AccessKind::Write)?;
        let access = self.data(AccessKind::Write);
        self.write(linear, written, value, access)?;
        self.set_stack_pointer(pointer);
        Ok(())
    }

    /// The faults of a push of `size` bytes, without it.
    #[cold]
    pub(crate) fn probe_push(&mut self, size: u8) -> Result {
        let pointer = self.stack_pointer().wrapping_sub(u64::from(size)) & mask(self.stack_width());
        let linear = self.segmented(SegmentName::Ss, pointer, u64::from(size), AccessKind::Write)?;
        let access = self.data(AccessKind::Write);
        self.read(linear, size, access).map(drop)
    }

    /// Reads the stack slot at `offset` above the stack pointer without moving it.
    #[inline]
    pub(crate) fn stack_slot(&mut self, offset: u64, size: u8) -> Result<u64> {
        let at = self.stack_pointer().wrapping_add(offset) & mask(self.stack_width());
        let linear = self.segmented(SegmentName::Ss, at, u64::from(size), AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        self.read(linear, size, access)
    }

    /// Moves the stack pointer `bytes` up.
    #[inline]
    pub(crate) const fn pop_bytes(&mut self, bytes: u64) {
        self.set_stack_pointer(self.stack_pointer().wrapping_add(bytes));
    }

    /// The memory operand as events report it.
    pub(crate) fn memory_operand(&self, op: &Decoded) -> MemoryOperand {
        let m = &op.memory;
        let offset = self.effective(op);
        let linear = self.unchecked(m.segment, offset);
        let relative = if m.base == RIP_BASE { self.cpu.rip } else { 0 };
        MemoryOperand {
            segment: m.segment,
            base: (m.base < 16).then(|| Gpr::from_number(m.base)),
            index: (m.index != NO_REGISTER).then(|| Gpr::from_number(m.index)),
            scale: m.scale,
            address_size: m.address_size,
            displacement: m.displacement.wrapping_add(relative),
            linear,
        }
    }

    /// The linear address of `offset` in `segment`, without any check.
    pub(crate) const fn unchecked(&self, segment: SegmentName, offset: u64) -> Linear {
        let base = self.cpu.segment(segment).base;
        if !self.cpu.is_64_bit() {
            return Linear(base.wrapping_add(offset) & 0xffff_ffff);
        }
        match segment {
            SegmentName::Fs | SegmentName::Gs => Linear(base.wrapping_add(offset)),
            _ => Linear(offset),
        }
    }
}

/// Whether `bytes` bytes at `offset` lie within `segment`'s limit.
pub(crate) const fn within_limit(segment: &Segment, offset: u64, bytes: u64) -> bool {
    let (limit, last) = (segment.limit as u64, offset + (bytes - 1));
    let expands_down = segment.rights.0 & 0xc == AccessRights::EXPAND_DOWN.0;
    if expands_down {
        let top = if segment.rights.contains(AccessRights::DB) { u32::MAX as u64 } else { 0xffff };
        offset > limit && last <= top
    } else {
        // What runs over the end of 4 GBytes may or may not fault on Intel's parts, and does on AMD's.
        last <= limit
    }
}

/// What an access outside of `segment` raises.
const fn outside(segment: SegmentName) -> Fault {
    if matches!(segment, SegmentName::Ss) { Fault::with_code(vector::SS, 0) } else { Fault::GP0 }
}
