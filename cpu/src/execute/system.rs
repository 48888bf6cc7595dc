//! System instructions: CPUID, time stamps, MSRs, invalidations, flags of interruptibility, random numbers, protection keys.

use super::flags::{CF, STATUS, mask};
use super::{Exec, Flow};
use crate::Cpu;
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::msr;
use crate::state::Activity;
use rootmode_arch::msr::IA32_EFER;
use rootmode_arch::record::Payload;
use rootmode_arch::{Cr4, Event, EventClass, Feature, Gpr, Linear, RFlags, SegmentName, Site, Stage, Vendor};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// EDX:EAX.
    pub(crate) const fn edx_eax(&self) -> u64 {
        self.cpu.gpr[Gpr::Rdx as usize] << 32 | self.cpu.gpr[Gpr::Rax as usize] & 0xffff_ffff
    }

    /// Writes EDX:EAX, clearing the upper halves.
    pub(crate) const fn put_edx_eax(&mut self, value: u64) {
        self.cpu.gpr[Gpr::Rax as usize] = value & 0xffff_ffff;
        self.cpu.gpr[Gpr::Rdx as usize] = value >> 32;
    }

    fn ecx(&self) -> u32 {
        self.cpu.gpr[Gpr::Rcx as usize] as u32
    }

    /// RDMSR's last step: the extension's MSRs first, then the core's.
    ///
    /// # Errors
    /// #GP(0) for an unknown MSR.
    pub(crate) fn read_msr(&mut self, index: u32) -> Result<u64> {
        let own = self.extension.as_deref_mut().and_then(|extension| extension.read_msr(self.cpu, index));
        if index == rootmode_arch::msr::IA32_TSC {
            self.cpu.tell_time();
        }
        let value = own.unwrap_or_else(|| msr::read(self.cpu, index))?;
        self.ctx.emit(self.cpu, Payload::Msr { index, write: false, value });
        Ok(value)
    }

    /// WRMSR's last step.
    ///
    /// # Errors
    /// #GP(0) for an unknown MSR or an illegal value.
    pub(crate) fn write_msr(&mut self, index: u32, value: u64) -> Result {
        let mut efer_bits = 0;
        if let Some(extension) = self.extension.as_deref_mut() {
            efer_bits = extension.efer_bits(self.cpu);
            if let Some(answer) = extension.write_msr(self.cpu, index, value) {
                answer?;
                self.ctx.emit(self.cpu, Payload::Msr { index, write: true, value });
                return Ok(());
            }
        }
        msr::write(self.cpu, index, value, efer_bits)?;
        self.ctx.emit(self.cpu, Payload::Msr { index, write: true, value });
        Ok(())
    }

    /// INVLPG's last step.
    pub(crate) fn invalidate_page(&mut self, linear: Linear) {
        let tag = self.cpu.tag;
        self.cpu.tlb.flush_page(tag.space, tag.pcid, linear);
        self.ctx.emit(self.cpu, Payload::Flush { cause: EventClass::Invlpg, linear: Some(linear) });
    }

    /// INVPCID's last step.
    ///
    /// # Errors
    /// #GP(0) for an unknown type, reserved descriptor bits, or a PCID while CR4.PCIDE = 0.
    pub(crate) fn invalidate_pcid(&mut self, kind: u64, descriptor: [u64; 2]) -> Result {
        let [low, address] = descriptor;
        let space = self.cpu.tag.space;
        let pcid = (low & 0xfff) as u16;
        let pcid_allowed = pcid == 0 || self.cpu.cr4.contains(Cr4::PCIDE);
        if kind > 3 || low >> 12 != 0 || kind < 2 && !pcid_allowed {
            return Err(Fault::GP0);
        }
        let mut linear = None;
        match kind {
            // Against the widest address that the part has, whatever CR4.LA57 says: kvm-unit-tests' `la57`
            // expects this of real parts.
            0 if !Linear(address).is_canonical(self.cpu.register_width()) => return Err(Fault::GP0),
            0 => {
                linear = Some(Linear(address));
                self.cpu.tlb.flush_page_of_pcid(space, pcid, Linear(address));
            }
            1 => self.cpu.tlb.flush_pcid(space, pcid),
            2 => self.cpu.tlb.flush_space(space),
            _ => self.cpu.tlb.flush_non_global(space),
        }
        self.ctx.emit(self.cpu, Payload::Flush { cause: EventClass::Invpcid, linear });
        Ok(())
    }

    /// CPUID's last step.
    pub(crate) fn cpuid_leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let intel = self.cpu.model.vendor() == Vendor::Intel;
        let inputs = self.cpu.cpuid_inputs();
        let mut registers = self.cpu.model.cpuid_with(leaf, subleaf, &inputs);
        if leaf == 0x8000_0001 && !intel && !inputs.apic {
            registers[3] &= !(1 << Feature::Apic.row().bit);
        }
        if leaf == 1 && intel && self.cpu.msrs.misc_enable & msr::MONITOR_ENABLED == 0 {
            registers[2] &= !(1 << Feature::Monitor.row().bit);
        }
        registers
    }
}

/// CPUID.
pub(crate) fn cpuid(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let (leaf, subleaf) = (x.cpu.gpr[Gpr::Rax as usize] as u32, x.ecx());
    if x.unprivileged(Event::Cpuid { leaf, subleaf })?.is_none() {
        let [eax, ebx, ecx, edx] = x.cpuid_leaf(leaf, subleaf).map(u64::from);
        x.cpu.gpr[Gpr::Rax as usize] = eax;
        x.cpu.gpr[Gpr::Rbx as usize] = ebx;
        x.cpu.gpr[Gpr::Rcx as usize] = ecx;
        x.cpu.gpr[Gpr::Rdx as usize] = edx;
    }
    Ok(Flow::Next)
}

fn read_time(x: &mut Exec<'_, '_>, event: Event, time: impl FnOnce(&Cpu) -> u64) -> Result<u64> {
    if let Some(value) = x.offer(event.class(), Stage::BeforeExceptions, |_| event)? {
        return Ok(value);
    }
    if x.cpu.cr4.contains(Cr4::TSD) && x.cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let value = x.offer_rest(event)?;
    x.cpu.tell_time();
    Ok(value.unwrap_or_else(|| time(x.cpu)))
}

/// RDTSC.
pub(crate) fn rdtsc(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let tsc = read_time(x, Event::Rdtsc, Cpu::tsc)?;
    x.put_edx_eax(tsc);
    Ok(Flow::Next)
}

/// RDTSCP.
pub(crate) fn rdtscp(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_defined(EventClass::Rdtscp)?;
    let tsc = read_time(x, Event::Rdtscp, Cpu::tsc)?;
    x.put_edx_eax(tsc);
    x.cpu.gpr[Gpr::Rcx as usize] = x.cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(Flow::Next)
}

/// RDPID: it has no event of its own and goes with RDTSCP.
pub(crate) fn rdpid(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_defined(EventClass::Rdtscp)?;
    let value = x.cpu.msrs.tsc_aux & 0xffff_ffff;
    x.put(op, 0, 8, value)?;
    Ok(Flow::Next)
}

/// RDPRU: MPERF, APERF, and 0 for registers that are not there. CR4.TSD governs it as it does RDTSC
/// (APM Vol. 3 "RDPRU").
pub(crate) fn rdpru(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let register = x.ecx();
    let value = read_time(x, Event::Rdpru { register }, |cpu| match register {
        0 => cpu.mperf(),
        1 => cpu.aperf(),
        _ => 0,
    })?;
    x.put_edx_eax(value);
    Ok(Flow::Next)
}

/// RDPMC.
pub(crate) fn rdpmc(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let event = Event::Rdpmc { counter: x.ecx() };
    if let Some(value) = x.offer(EventClass::Rdpmc, Stage::BeforeExceptions, |_| event)? {
        x.put_edx_eax(value);
        return Ok(Flow::Next);
    }
    if x.cpu.cpl != 0 && !x.cpu.cr4.contains(Cr4::PCE) {
        return Err(Fault::GP0);
    }
    let value = match x.offer_rest(event)? {
        Some(value) => value,
        None => x.cpu.settled_counters().numbered(x.ecx())?,
    };
    x.put_edx_eax(value);
    Ok(Flow::Next)
}

/// RDMSR.
pub(crate) fn rdmsr(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let index = x.ecx();
    let value = match x.privileged(Event::Rdmsr { index })? {
        Some(value) => value,
        None => x.read_msr(index)?,
    };
    x.put_edx_eax(value);
    Ok(Flow::Next)
}

/// WRMSR.
pub(crate) fn wrmsr(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let (index, value) = (x.ecx(), x.edx_eax());
    if x.privileged(Event::Wrmsr { index, value })?.is_none() {
        x.write_msr(index, value)?;
        if index == IA32_EFER {
            let event = |x: &mut Exec<'_, '_>| Event::EferWritten { value: x.cpu.efer.0 };
            x.offer(EventClass::EferWritten, Stage::AfterOperands, event)?;
        }
    }
    Ok(Flow::Next)
}

/// INVLPG: a non-canonical address does nothing.
pub(crate) fn invlpg(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let linear = x.memory_operand(op).linear;
    if x.privileged(Event::Invlpg { linear })?.is_none() {
        x.invalidate_page(linear);
    }
    Ok(Flow::Next)
}

/// INVPCID.
pub(crate) fn invpcid(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_defined(EventClass::Invpcid)?;
    let Operand::Register(number) = op.operands[0] else { return Err(Fault::UD) };
    let kind = Gpr::from_number(number);
    let event = Event::Invpcid { kind, operand: x.memory_operand(op) };
    x.offer(EventClass::Invpcid, Stage::BeforeExceptions, |_| event)?;
    x.require_cpl0()?;
    x.offer(EventClass::Invpcid, Stage::AfterPrivilege, |_| event)?;
    let descriptor = x.descriptor_operand(op)?;
    x.offer(EventClass::Invpcid, Stage::AfterOperands, |_| event)?;
    let kind = x.cpu.register(kind);
    x.invalidate_pcid(kind, descriptor)?;
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// The 16-byte memory operand of INVPCID, INVEPT, INVVPID.
    pub(crate) fn descriptor_operand(&mut self, op: &Decoded) -> Result<[u64; 2]> {
        let linear = self.linear(op, 16, AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        Ok([self.read(linear, 8, access)?, self.read(linear.offset(8), 8, access)?])
    }
}

/// HLT.
pub(crate) fn hlt(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.privileged(Event::Hlt)?;
    x.cpu.activity = Activity::Halted;
    x.cpu.update_attention();
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// Which flag CLI and STI change: IF up to IOPL, else the virtual one with CR4.VME or, at CPL 3, CR4.PVI.
    const fn interrupt_flag(&self) -> Result<RFlags> {
        let flags = self.cpu.rflags();
        let cpl = self.cpu.cpl;
        let virtual_flag = if flags.contains(RFlags::VM) { Cr4::VME } else { Cr4::PVI };
        if cpl <= flags.iopl() {
            Ok(RFlags::IF)
        } else if cpl == 3 && self.cpu.cr4.contains(virtual_flag) {
            Ok(RFlags::VIF)
        } else {
            Err(Fault::GP0)
        }
    }
}

/// CLI.
pub(crate) fn cli(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let flags = x.cpu.rflags().without(x.interrupt_flag()?);
    x.cpu.set_rflags(flags);
    Ok(Flow::Next)
}

/// STI: interrupts are possible after the next instruction, if they were not before.
pub(crate) fn sti(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let flags = x.cpu.rflags();
    let which = x.interrupt_flag()?;
    if which == RFlags::VIF && flags.contains(RFlags::VIP) {
        return Err(Fault::GP0);
    }
    if !flags.contains(which) {
        x.cpu.sti_shadow |= which == RFlags::IF;
        x.cpu.set_rflags(flags.with(which));
    }
    Ok(Flow::Next)
}

/// CLD (immediate 0), STD (1).
pub(crate) fn direction(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.cpu.set_status(RFlags::DF.0, if op.immediate != 0 { RFlags::DF.0 } else { 0 });
    Ok(Flow::Next)
}

/// CLAC (immediate 0), STAC (1).
pub(crate) fn alignment_check(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    x.cpu.set_status(RFlags::AC.0, if op.immediate != 0 { RFlags::AC.0 } else { 0 });
    Ok(Flow::Next)
}

/// PAUSE.
pub(crate) fn pause(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let event = Event::Pause { cpl: x.cpu.cpl, tsc: x.cpu.host_tsc() };
    x.unprivileged(event)?;
    Ok(Flow::Next)
}

/// INVD, WBINVD, WBNOINVD: caches are coherent, nothing to do.
pub(crate) fn cache_control(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let event = match op.immediate {
        0 => Event::Invd,
        kind => Event::Wbinvd { no_invalidate: kind == 2 },
    };
    x.privileged(event)?;
    Ok(Flow::Next)
}

/// SWAPGS.
pub(crate) fn swapgs(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_cpl0()?;
    let old = x.cpu.segment(SegmentName::Gs).base;
    x.cpu.segment_mut(SegmentName::Gs).base = x.cpu.msrs.kernel_gs_base;
    x.cpu.msrs.kernel_gs_base = old;
    Ok(Flow::Next)
}

/// RDRAND and RDSEED: a choice each. The first choice is whether it fails (0: no), then the value in 16-bit pieces.
pub(crate) fn random(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let Operand::Register(number) = op.operands[0] else { return Err(Fault::UD) };
    let (gpr, size) = (Gpr::from_number(number), op.size);
    let event = if op.immediate == 0 { Event::Rdrand { gpr, size } } else { Event::Rdseed { gpr, size } };
    x.unprivileged(event)?;
    let fails = x.ctx.choose(x.cpu, Site::Random, 2) == 1;
    let mut value = 0;
    if !fails {
        for piece in 0..u32::from(size) / 2 {
            value |= x.ctx.choose(x.cpu, Site::Random, 1 << 16) << (16 * piece);
        }
    }
    x.put(op, 0, size, value & mask(size))?;
    x.cpu.set_status(STATUS, if fails { 0 } else { CF });
    Ok(Flow::Next)
}

/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: immediate bit 0 says GS, bit 1 write.
pub(crate) fn segment_base(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.cpu.cr4.contains(Cr4::FSGSBASE) {
        return Err(Fault::UD);
    }
    let name = if op.immediate & 1 != 0 { SegmentName::Gs } else { SegmentName::Fs };
    if op.immediate & 2 == 0 {
        let base = x.cpu.segment(name).base;
        x.put(op, 0, op.size, base)?;
    } else {
        let base = x.get(op, 0, op.size)?;
        if !Linear(base).is_canonical(x.cpu.linear_width()) {
            return Err(Fault::GP0);
        }
        x.cpu.segment_mut(name).base = base;
    }
    Ok(Flow::Next)
}

/// RDPKRU (immediate 0), WRPKRU (1).
pub(crate) fn protection_keys(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.cpu.cr4.contains(Cr4::PKE) || !x.cpu.model.has(Feature::Pku) {
        return Err(Fault::UD);
    }
    let high = x.cpu.gpr[Gpr::Rdx as usize] as u32;
    if x.ecx() != 0 || op.immediate == 1 && high != 0 {
        return Err(Fault::GP0);
    }
    if op.immediate == 0 {
        let value = u64::from(x.cpu.pkru);
        x.put_edx_eax(value);
    } else {
        x.cpu.pkru = x.cpu.gpr[Gpr::Rax as usize] as u32;
        x.cpu.refresh();
    }
    Ok(Flow::Next)
}
