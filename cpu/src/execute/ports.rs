//! Port input and output: IN, OUT, INS, OUTS.

use super::flags::mask;
use super::smm::PortInstruction;
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::event::PortAccess;
use rootmode_arch::record::Payload;
use rootmode_arch::{Cr0, Event, EventClass, Gpr, Linear, RFlags, SegmentName, Stage};
use rootmode_mmu::{Access, AccessKind};

impl Exec<'_, '_> {
    /// Whether every port may be used without a look at the TSS: in real mode, and with CPL within IOPL.
    #[inline]
    pub(crate) const fn may_use_ports(&self) -> bool {
        let flags = self.cpu.control_flags();
        !self.cpu.cr0.contains(Cr0::PE) || self.cpu.cpl <= flags.iopl() && !flags.contains(RFlags::VM)
    }

    /// CPL above IOPL: every bit of the TSS's permission map for the bytes of the port must be 0
    /// (SDM Vol. 1 "I/O Permission Bit Map").
    fn check_port(&mut self, port: u16, size: u8) -> Result {
        if self.may_use_ports() {
            return Ok(());
        }
        let tr = *self.cpu.segment(SegmentName::Tr);
        let access = Access::implicit(AccessKind::Read);
        if !tr.rights.is_usable() || tr.rights.kind() & 8 == 0 || tr.limit < 0x67 {
            return Err(Fault::GP0);
        }
        let map = self.read(Linear(tr.base.wrapping_add(0x66)), 2, access)?;
        let offset = map + u64::from(port >> 3);
        if offset + 1 > u64::from(tr.limit) {
            return Err(Fault::GP0);
        }
        let bits = self.read(Linear(tr.base.wrapping_add(offset)), 2, access)?;
        if bits >> (port & 7) & ((1 << size) - 1) == 0 { Ok(()) } else { Err(Fault::GP0) }
    }

    /// Before a port is accessed: breakpoints, and what an SMI behind the instruction reports.
    fn note_port(&mut self, access: &PortAccess) {
        let cpu = &mut *self.cpu;
        cpu.matched_breakpoints |= cpu.port_matches(access.port, access.size);
        let [rcx, rsi, rdi] = [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi].map(|gpr| cpu.register(gpr));
        cpu.last_port = Some(PortInstruction {
            tick: cpu.tick + 1,
            rip: cpu.rip,
            rcx,
            rsi,
            rdi,
            port: access.port,
            size: access.size,
            input: access.input,
            string: access.string,
            rep: access.rep,
            immediate: access.immediate,
        });
    }

    /// IN: the port is read.
    #[inline]
    pub(crate) fn input(&mut self, access: &PortAccess) -> u64 {
        self.note_port(access);
        let (port, size) = (access.port, access.size);
        let tick = self.cpu.tell_time();
        let value = self.ctx.bus.read_port(port, size, tick, self.ctx.effects) & mask(size) as u32;
        self.note_effects();
        self.ctx.emit(self.cpu, Payload::Port { port, size, write: false, value });
        u64::from(value)
    }

    /// OUT: the port is written.
    #[inline]
    pub(crate) fn output(&mut self, access: &PortAccess, value: u64) {
        self.note_port(access);
        let (port, size) = (access.port, access.size);
        let (tick, value) = (self.cpu.tell_time(), (value & mask(size)) as u32);
        self.ctx.bus.write_port(port, size, value, tick, self.ctx.effects);
        self.note_effects();
        self.ctx.emit(self.cpu, Payload::Port { port, size, write: true, value });
    }

    /// Offers the access around the permission check.
    fn offer_port(&mut self, access: PortAccess) -> Result<bool> {
        let event = Event::PortIo(access);
        if self.offer(EventClass::PortIo, Stage::BeforeExceptions, |_| event)?.is_some() {
            return Ok(true);
        }
        self.check_port(access.port, access.size)?;
        Ok(self.offer(EventClass::PortIo, Stage::AfterPrivilege, |_| event)?.is_some())
    }
}

fn plain(x: &Exec<'_, '_>, op: &Decoded, port_operand: usize, input: bool) -> PortAccess {
    let immediate = op.operands[port_operand] == Operand::Immediate;
    let port = if immediate { op.immediate as u8 as u16 } else { x.cpu.gpr[Gpr::Rdx as usize] as u16 };
    PortAccess {
        port,
        size: op.size,
        input,
        string: false,
        rep: false,
        immediate,
        address_size: 0,
        segment: SegmentName::Ds,
        linear: Linear(0),
    }
}

/// IN.
pub(crate) fn in_(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let access = plain(x, op, 1, true);
    if x.offer_port(access)? || x.offer_last(access)? {
        return Ok(Flow::Next);
    }
    let value = x.input(&access);
    x.put_register(Gpr::Rax as u8, op.size, value);
    Ok(Flow::Next)
}

/// OUT.
pub(crate) fn out(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let access = plain(x, op, 0, false);
    if x.offer_port(access)? || x.offer_last(access)? {
        return Ok(Flow::Next);
    }
    let value = x.cpu.gpr[Gpr::Rax as usize];
    x.output(&access, value);
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    fn offer_last(&mut self, access: PortAccess) -> Result<bool> {
        Ok(self.offer(EventClass::PortIo, Stage::AfterOperands, |_| Event::PortIo(access))?.is_some())
    }

    fn string_port(&self, op: &Decoded, input: bool) -> PortAccess {
        let (register, segment) =
            if input { (Gpr::Rdi, SegmentName::Es) } else { (Gpr::Rsi, op.memory.segment) };
        let offset = self.cpu.gpr[register as usize] & mask(op.memory.address_size);
        PortAccess {
            port: self.cpu.gpr[Gpr::Rdx as usize] as u16,
            size: op.size,
            input,
            string: true,
            rep: op.repeat != crate::decode::Repeat::None,
            immediate: false,
            address_size: op.memory.address_size,
            segment,
            linear: self.unchecked(segment, offset),
        }
    }
}

/// INS: the destination is checked before the port is read.
pub(crate) fn ins(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.repeats(op) {
        return Ok(Flow::Next);
    }
    let port = x.string_port(op, true);
    let mut done = x.offer_port(port)?;
    if !done {
        let to = x.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Write)?;
        let write = x.data(AccessKind::Write);
        x.translate(to, write)?;
        x.translate(to.offset(u64::from(op.size) - 1), write)?;
        if x.cpu.checks_data {
            x.check_data(to, op.size, write)?;
        }
        done = x.offer_last(port)?;
        if !done {
            let value = x.input(&port);
            x.write(to, op.size, value, write)?;
        }
    }
    x.advance(op, Gpr::Rdi);
    Ok(x.iterate(op, false))
}

/// OUTS.
pub(crate) fn outs(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.repeats(op) {
        return Ok(Flow::Next);
    }
    let port = x.string_port(op, false);
    if !x.offer_port(port)? {
        let from = x.string_address(op, Gpr::Rsi, op.memory.segment, AccessKind::Read)?;
        let read = x.data(AccessKind::Read);
        let value = x.read(from, op.size, read)?;
        if !x.offer_last(port)? {
            x.output(&port, value);
        }
    }
    x.advance(op, Gpr::Rsi);
    Ok(x.iterate(op, false))
}
