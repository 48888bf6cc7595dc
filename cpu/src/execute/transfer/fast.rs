//! Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT, with the vendors' differences
//! (SDM Vol. 2B of each; APM Vol. 3 "SYSCALL", "SYSRET", "SYSENTER", "SYSEXIT"; APM Vol. 2 "Legacy SYSENTER and SYSEXIT").

use super::super::flags::mask;
use super::super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Dr6, Efer, Gpr, Linear, RFlags, Segment, SegmentName, Selector, Vendor};

/// Rights of flat code and data at level 0; with [`USER`] at level 3.
const CODE_64: u32 = 0xa09b;
const CODE_32: u32 = 0xc09b;
const DATA: u32 = 0xc093;
const USER: u32 = 0x60;

const RCX: usize = Gpr::Rcx as usize;
const RDX: usize = Gpr::Rdx as usize;
const R11: usize = Gpr::R11 as usize;
const RSP: usize = Gpr::Rsp as usize;

const fn flat(selector: u64, rights: u32) -> Segment {
    Segment { selector: Selector(selector as u16), rights: AccessRights(rights), limit: u32::MAX, base: 0 }
}

impl Exec<'_, '_> {
    fn is_amd(&self) -> bool {
        matches!(self.cpu.model.vendor(), Vendor::Amd)
    }

    fn enter(&mut self, cs: Segment, ss: Segment, level: u8, rip: u64) {
        *self.cpu.segment_mut(SegmentName::Cs) = cs;
        *self.cpu.segment_mut(SegmentName::Ss) = ss;
        self.cpu.set_level(level);
        self.cpu.rip = rip;
    }

    /// SYSCALL and SYSRET take the single-step trap by the TF that they leave, not by the one that they found.
    fn set_flags_and_trap(&mut self, flags: RFlags) {
        self.cpu.trap_inhibited = true;
        if flags.contains(RFlags::TF) {
            self.cpu.pending_debug |= Dr6::BS.0;
        }
        self.cpu.set_rflags(flags);
    }

    /// # Errors
    /// #UD without EFER.SCE; Intel has SYSCALL and SYSRET in 64-bit mode only.
    fn require_syscall(&self) -> Result {
        let allowed = self.cpu.efer.contains(Efer::SCE) && (self.is_amd() || self.cpu.is_64_bit());
        if allowed { Ok(()) } else { Err(Fault::UD) }
    }
}

/// SYSCALL.
pub(crate) fn syscall(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_syscall()?;
    let next = x.next_rip(op);
    let (flags, from) = (x.cpu.rflags(), x.cpu.cpl);
    let star = x.cpu.msrs.star;
    let (cs, ss) = (star >> 32 & 0xfffc, (star >> 32).wrapping_add(8) & 0xffff);
    x.cpu.gpr[RCX] = next;
    if x.is_long() {
        x.cpu.gpr[R11] = flags.without(RFlags::RF).0;
        let target = if x.cpu.is_64_bit() { x.cpu.msrs.lstar } else { x.cpu.msrs.cstar };
        let masked = RFlags(flags.0 & !x.cpu.msrs.fmask).without(RFlags::RF);
        x.enter(flat(cs, CODE_64), flat(ss, DATA), 0, target);
        x.set_flags_and_trap(masked);
    } else {
        x.enter(flat(cs, CODE_32), flat(ss, DATA), 0, star & 0xffff_ffff);
        x.set_flags_and_trap(flags.without(RFlags::VM | RFlags::IF | RFlags::RF));
    }
    x.shadow_system_call(from);
    x.cpu.refresh();
    Ok(Flow::Jumped)
}

/// SYSRET to 64-bit (operand size 8) or compatibility mode, or within legacy mode.
pub(crate) fn sysret(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_syscall()?;
    if !x.cpu.is_protected() {
        return Err(Fault::GP0);
    }
    x.require_cpl0()?;
    let long = op.size == 8;
    let rip = x.cpu.gpr[RCX];
    // Intel checks RCX here; AMD loads it, and the next fetch faults at CPL 3.
    let canonical = Linear(rip).is_canonical(x.cpu.linear_width());
    if long && !canonical && !x.is_amd() {
        return Err(Fault::GP0);
    }
    let base = x.cpu.msrs.star >> 48;
    let (cs, rights) = if long { (base.wrapping_add(16), CODE_64) } else { (base, CODE_32) };
    let ss = base.wrapping_add(8);
    let stack = if x.is_amd() {
        // AMD replaces the selector and leaves the rest of SS as it is, but for the level.
        let old = *x.cpu.segment(SegmentName::Ss);
        Segment { selector: Selector(ss as u16 | 3), rights: old.rights.with(AccessRights(USER)), ..old }
    } else {
        flat(ss | 3, DATA | USER)
    };
    x.enter(flat(cs | 3, rights | USER), stack, 3, if long { rip } else { rip & mask(4) });
    let old = x.cpu.rflags();
    let flags = if x.is_long() { RFlags(x.cpu.gpr[R11] & 0x003c_7fd7) } else { old.with(RFlags::IF) };
    x.set_flags_and_trap(flags);
    x.shadow_system_return();
    x.cpu.refresh();
    Ok(Flow::Jumped)
}

/// What SYSENTER and SYSEXIT need: protected mode and a selector in IA32_SYSENTER_CS. AMD has neither in long mode.
fn sysenter_selector(x: &Exec<'_, '_>) -> Result<u64> {
    if x.is_amd() && x.is_long() {
        return Err(Fault::UD);
    }
    let selector = x.cpu.msrs.sysenter_cs & 0xfffc;
    if !x.cpu.cr0.contains(rootmode_arch::Cr0::PE) || selector == 0 {
        return Err(Fault::GP0);
    }
    Ok(selector)
}

/// SYSENTER.
pub(crate) fn sysenter(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let cs = sysenter_selector(x)?;
    let from = x.cpu.cpl;
    let (rights, width) = if x.is_long() { (CODE_64, 8) } else { (CODE_32, 4) };
    let rip = x.cpu.msrs.sysenter_eip & mask(width);
    x.cpu.gpr[RSP] = x.cpu.msrs.sysenter_esp & mask(width);
    x.enter(flat(cs, rights), flat(cs + 8, DATA), 0, rip);
    let flags = x.cpu.rflags().without(RFlags::VM | RFlags::IF | RFlags::RF);
    x.cpu.set_rflags(flags);
    x.shadow_system_call(from);
    x.cpu.refresh();
    Ok(Flow::Jumped)
}

/// SYSEXIT to 64-bit (operand size 8) or 32-bit code.
pub(crate) fn sysexit(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let base = sysenter_selector(x)?;
    if x.cpu.rflags().contains(RFlags::VM) {
        return Err(Fault::GP0);
    }
    x.require_cpl0()?;
    let long = op.size == 8;
    let (rsp, rip) = (x.cpu.gpr[RCX], x.cpu.gpr[RDX]);
    let width = x.cpu.linear_width();
    if long && !(Linear(rsp).is_canonical(width) && Linear(rip).is_canonical(width)) {
        return Err(Fault::GP0);
    }
    let (cs, rights, size) = if long { (base + 32, CODE_64, 8) } else { (base + 16, CODE_32, 4) };
    x.cpu.gpr[RSP] = rsp & mask(size);
    x.enter(flat(cs | 3, rights | USER), flat(cs + 8 | 3, DATA | USER), 3, rip & mask(size));
    x.shadow_system_return();
    x.cpu.refresh();
    Ok(Flow::Jumped)
}
