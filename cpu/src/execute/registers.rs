//! Control and debug registers: MOV CR, MOV DR, CLTS, LMSW, SMSW, XGETBV, XSETBV.

use super::events::debug_exception;
use super::{Exec, Flow};
use crate::components;
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::{
    AccessRights, Cr0, Cr3, Cr4, Dr6, Dr7, Efer, Event, EventClass, Feature, Gpr, SegmentName, Stage, Vendor,
};
use rootmode_mmu::{PagingMode, PdpteFault, load_pdptes};

impl Exec<'_, '_> {
    /// The value of a control register. `cr` is 0, 2, 3, 4 or 8.
    ///
    /// # Errors
    /// #UD for any other number.
    pub(crate) fn read_cr(&self, cr: u8) -> Result<u64> {
        Ok(match cr {
            0 => self.cpu.cr0.0,
            2 => self.cpu.cr2,
            3 => self.cpu.cr3.0,
            4 => self.cpu.cr4.0,
            8 => {
                let own = self.cpu.published.virtual_tpr.filter(|_| !self.cpu.published.tpr_is_shared);
                u64::from(own.unwrap_or_else(|| self.cpu.cr8()))
            }
            _ => return Err(Fault::UD),
        })
    }

    /// Writes a control register with the checks of MOV to CR.
    ///
    /// # Errors
    /// #GP(0) for an illegal value, #UD for a register that does not exist.
    pub(crate) fn write_cr(&mut self, cr: u8, value: u64) -> Result {
        match cr {
            0 => self.write_cr0(value)?,
            2 => self.cpu.cr2 = value,
            3 => self.write_cr3(value)?,
            4 => self.write_cr4(value)?,
            8 if value > 15 => return Err(Fault::GP0),
            8 => {
                let published = &mut self.cpu.published;
                let physical = published.virtual_tpr.is_none() || published.tpr_is_shared;
                if let Some(priority) = &mut published.virtual_tpr {
                    *priority = value as u8;
                }
                if physical {
                    self.cpu.set_cr8(value as u8);
                }
            }
            _ => return Err(Fault::UD),
        }
        self.cpu.refresh();
        Ok(())
    }

    /// The checks of MOV to CR that need no memory.
    ///
    /// # Errors
    /// #GP(0) for an illegal value.
    fn check_cr(&self, cr: u8, value: u64) -> Result {
        match cr {
            0 => self.check_cr0(value).map(drop),
            3 => self.check_cr3(value).map(drop),
            4 => self.check_cr4(value),
            8 if value > 15 => Err(Fault::GP0),
            _ => Ok(()),
        }
    }

    fn check_cr0(&self, value: u64) -> Result<Cr0> {
        let cpu = &*self.cpu;
        let new = Cr0(value & Cr0::NAMED.0) | Cr0::ET;
        let old = cpu.cr0;
        let without = |need: Cr0, of: Cr0| new.contains(of) && !new.contains(need);
        if value >> 32 != 0 || without(Cr0::PE, Cr0::PG) || without(Cr0::CD, Cr0::NW) {
            return Err(Fault::GP0);
        }
        if cpu.cr4.contains(Cr4::CET) && !new.contains(Cr0::WP) {
            return Err(Fault::GP0);
        }
        if let Some(extension) = &self.extension {
            extension.check_cr(cpu, 0, new.0)?;
        }
        let (turns_on, turns_off) = (
            new.contains(Cr0::PG) && !old.contains(Cr0::PG),
            old.contains(Cr0::PG) && !new.contains(Cr0::PG),
        );
        let long_code = cpu.segment(SegmentName::Cs).rights.contains(AccessRights::L);
        if turns_off && (cpu.cr4.contains(Cr4::PCIDE) || cpu.efer.contains(Efer::LMA) && long_code) {
            return Err(Fault::GP0);
        }
        // Long mode has no 16-bit TSS.
        let small_task = cpu.segment(SegmentName::Tr).rights.kind() & 8 == 0;
        let refused = !cpu.cr4.contains(Cr4::PAE) || long_code || small_task;
        if turns_on && cpu.efer.contains(Efer::LME) && refused {
            return Err(Fault::GP0);
        }
        Ok(new)
    }

    fn write_cr0(&mut self, value: u64) -> Result {
        let new = self.check_cr0(value)?;
        let cpu = &*self.cpu;
        let old = cpu.cr0;
        let long = cpu.efer.contains(Efer::LME) && new.contains(Cr0::PG);
        let (efer, cr3, cr4) = (cpu.efer.set(Efer::LMA, long), cpu.cr3, cpu.cr4);
        if (new.0 ^ old.0) & (Cr0::PG | Cr0::CD | Cr0::NW).0 != 0 {
            self.load_pdptes(PagingMode::of(new, cr4, efer), cr3)?;
        }
        self.cpu.efer = efer;
        self.cpu.cr0 = new;
        if (new.0 ^ old.0) & (Cr0::PG | Cr0::WP | Cr0::PE).0 != 0 {
            self.cpu.tlb.flush_space(self.cpu.published.space);
        }
        Ok(())
    }

    /// CR3 as it is written: without the bit that keeps translations.
    fn check_cr3(&self, value: u64) -> Result<u64> {
        let cpu = &*self.cpu;
        let pcide = cpu.cr4.contains(Cr4::PCIDE);
        let value = if pcide { value & !(1 << 63) } else { value };
        let lam = if cpu.model.has(Feature::Lam) { Cr3::LAM_U48 | Cr3::LAM_U57 } else { Cr3(0) };
        let ignored = lam.0 | cpu.c_bit();
        if cpu.efer.contains(Efer::LMA) && (value & !ignored) >> cpu.model.physical_width() != 0 {
            return Err(Fault::GP0);
        }
        Ok(value)
    }

    fn write_cr3(&mut self, value: u64) -> Result {
        let cpu = &*self.cpu;
        let keep = cpu.cr4.contains(Cr4::PCIDE) && value >> 63 != 0;
        let value = self.check_cr3(value)?;
        self.load_pdptes(PagingMode::of(cpu.cr0, cpu.cr4, cpu.efer), Cr3(value))?;
        self.set_cr3(value, keep);
        Ok(())
    }

    /// Loads CR3 as a task switch does.
    ///
    /// # Errors
    /// #GP(0) for reserved bits in the PDPTEs of PAE paging; what the second stage refuses.
    pub(crate) fn load_cr3(&mut self, value: u64) -> Result {
        let cpu = &*self.cpu;
        self.load_pdptes(PagingMode::of(cpu.cr0, cpu.cr4, cpu.efer), Cr3(value))?;
        self.set_cr3(value, false);
        Ok(())
    }

    fn set_cr3(&mut self, value: u64, keep: bool) {
        self.cpu.cr3 = Cr3(value);
        if !keep {
            let pcide = self.cpu.cr4.contains(Cr4::PCIDE);
            let pcid = if pcide { (value & 0xfff) as u16 } else { 0 };
            self.cpu.tlb.flush_pcid(self.cpu.published.space, pcid);
        }
    }

    fn check_cr4(&self, value: u64) -> Result {
        let cpu = &*self.cpu;
        let (new, old) = (Cr4(value), cpu.cr4);
        if value & !cpu.model.cr4_bits().0 != 0 {
            return Err(Fault::GP0);
        }
        if let Some(extension) = &self.extension {
            extension.check_cr(cpu, 4, value)?;
        }
        let long = cpu.efer.contains(Efer::LMA);
        let changed = Cr4(new.0 ^ old.0);
        if long && (!new.contains(Cr4::PAE) || changed.contains(Cr4::LA57)) {
            return Err(Fault::GP0);
        }
        if new.contains(Cr4::CET) && !cpu.cr0.contains(Cr0::WP) {
            return Err(Fault::GP0);
        }
        let pcide_on = new.contains(Cr4::PCIDE) && !old.contains(Cr4::PCIDE);
        if pcide_on && (!long || cpu.cr3.0 & 0xfff != 0) {
            return Err(Fault::GP0);
        }
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result {
        self.check_cr4(value)?;
        let cpu = &*self.cpu;
        let (new, old) = (Cr4(value), cpu.cr4);
        let changed = Cr4(new.0 ^ old.0);
        let (mode, cr3) = (PagingMode::of(cpu.cr0, new, cpu.efer), cpu.cr3);
        if changed.intersects(Cr4::PAE | Cr4::PGE | Cr4::PSE | Cr4::SMEP) {
            self.load_pdptes(mode, cr3)?;
        }
        self.cpu.cr4 = new;
        let flushing = Cr4::PGE | Cr4::PAE | Cr4::PSE | Cr4::SMEP | Cr4::LA57;
        let pcide_off = old.contains(Cr4::PCIDE) && !new.contains(Cr4::PCIDE);
        if changed.intersects(flushing) || pcide_off {
            self.cpu.tlb.flush_space(self.cpu.published.space);
        }
        Ok(())
    }

    /// Loads the PDPTE registers before a control register changes, if PAE paging will be in use
    /// (SDM Vol. 3A "PDPTE Registers").
    ///
    /// # Errors
    /// #GP(0) for a reserved bit in a present entry; what the second stage refuses.
    fn load_pdptes(&mut self, mode: PagingMode, cr3: Cr3) -> Result {
        if mode != PagingMode::Pae {
            return Ok(());
        }
        let width = self.cpu.model.physical_width();
        let second = self.cpu.published.second_stage;
        let c_bit = self.cpu.c_bit();
        self.cpu.pdptes =
            load_pdptes(self.ctx.memory, &second, cr3, width, c_bit).map_err(|fault| match fault {
                PdpteFault::Reserved => Fault::GP0,
                PdpteFault::SecondStage(access) => Fault::SecondStage(access),
            })?;
        Ok(())
    }

    /// Which debug register `dr` really is: 4 and 5 are 6 and 7, unless CR4.DE makes them #UD.
    fn debug_register(&self, dr: u8) -> Result<u8> {
        match dr {
            4 | 5 if self.cpu.cr4.contains(Cr4::DE) => Err(Fault::UD),
            4 | 5 => Ok(dr + 2),
            _ => Ok(dr),
        }
    }

    /// DR7.GD: any access raises #DB.
    fn general_detect(&self) -> Result {
        if self.cpu.dr7 & Dr7::GD.0 == 0 {
            return Ok(());
        }
        Err(debug_exception(Dr6::BD.0))
    }

    /// A debug register.
    ///
    /// # Errors
    /// #UD, or #DB with DR7.GD.
    pub(crate) fn read_dr(&self, dr: u8) -> Result<u64> {
        let dr = self.debug_register(dr)?;
        self.general_detect()?;
        Ok(match dr {
            6 => self.cpu.dr6,
            7 => self.cpu.dr7,
            n => self.cpu.dr[usize::from(n & 3)],
        })
    }

    /// Writes a debug register.
    ///
    /// # Errors
    /// #UD, #DB with DR7.GD, #GP(0) for upper bits of DR6 and DR7.
    pub(crate) fn write_dr(&mut self, dr: u8, value: u64) -> Result {
        let dr = self.debug_register(dr)?;
        self.general_detect()?;
        if dr >= 6 && value >> 32 != 0 {
            return Err(Fault::GP0);
        }
        match dr {
            6 => self.cpu.dr6 = value & 0xe00f | self.cpu.dr6_ones(value),
            7 => self.cpu.dr7 = value & 0xffff_2bff | 0x400,
            n => self.cpu.dr[usize::from(n & 3)] = value,
        }
        self.cpu.update_attention();
        Ok(())
    }
}

impl Exec<'_, '_> {
    /// Tells who wants to know that control register `cr` was written.
    fn written(&mut self, cr: u8) -> Result {
        let event = |x: &mut Self| Event::CrWritten { cr, value: x.read_cr(cr).unwrap_or(0) };
        self.offer(EventClass::CrWritten, Stage::AfterOperands, event).map(drop)
    }

    /// What of a general register MOV to and from control and debug registers sees: 32 bits outside 64-bit mode.
    const fn register_mask(&self) -> u64 {
        if self.cpu.is_64_bit() { u64::MAX } else { 0xffff_ffff }
    }
}

fn special(operand: Operand) -> Result<u8> {
    if let Operand::Special(number) = operand { Ok(number) } else { Err(Fault::UD) }
}

fn register(operand: Operand) -> Result<Gpr> {
    if let Operand::Register(number) = operand { Ok(Gpr::from_number(number)) } else { Err(Fault::UD) }
}

/// MOV r64, CRn.
pub(crate) fn mov_from_cr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (cr, gpr) = (special(op.operands[1])?, register(op.operands[0])?);
    x.read_cr(cr)?;
    let done = x.privileged(Event::CrRead { cr, gpr })?;
    let value = match done {
        Some(value) => value,
        None => x.read_cr(cr)?,
    };
    x.cpu.gpr[gpr as usize] = value & x.register_mask();
    Ok(Flow::Next)
}

/// MOV CRn, r64.
pub(crate) fn mov_to_cr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (cr, gpr) = (special(op.operands[0])?, register(op.operands[1])?);
    x.read_cr(cr)?;
    let value = x.cpu.register(gpr) & x.register_mask();
    // AMD's parts look at the value before they ask for the intercept (APM Vol. 2 "Instruction Intercepts").
    if x.cpu.published.guest && x.cpu.model.vendor() == Vendor::Amd && x.cpu.cpl == 0 {
        x.check_cr(cr, value)?;
    }
    let done = x.privileged(Event::CrWrite { cr, gpr, value })?;
    // A virtual CR8 has taken the value already.
    if cr != 8 || done.is_none() {
        x.write_cr(cr, done.unwrap_or(value))?;
        x.written(cr)?;
    }
    Ok(Flow::Next)
}

/// MOV r64, DRn.
pub(crate) fn mov_from_dr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (dr, gpr) = (special(op.operands[1])?, register(op.operands[0])?);
    let done = x.privileged(Event::DrRead { dr, gpr })?;
    let value = match done {
        Some(value) => value,
        None => x.read_dr(dr)?,
    };
    x.cpu.gpr[gpr as usize] = value & x.register_mask();
    Ok(Flow::Next)
}

/// MOV DRn, r64.
pub(crate) fn mov_to_dr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (dr, gpr) = (special(op.operands[0])?, register(op.operands[1])?);
    let value = x.cpu.register(gpr) & x.register_mask();
    if x.privileged(Event::DrWrite { dr, gpr, value })?.is_none() {
        x.write_dr(dr, value)?;
    }
    Ok(Flow::Next)
}

/// CLTS.
pub(crate) fn clts(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    match x.privileged(Event::Clts)? {
        Some(value) => x.write_cr(0, value)?,
        None => {
            x.cpu.cr0 = x.cpu.cr0.without(Cr0::TS);
        }
    }
    x.written(0)?;
    Ok(Flow::Next)
}

/// LMSW: sets PE, MP, EM, TS; cannot clear PE.
pub(crate) fn lmsw(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let event = |x: &Exec<'_, '_>, source| Event::Lmsw {
        source,
        memory: op.is_memory().then(|| x.memory_operand(op).linear),
    };
    x.offer(EventClass::Lmsw, Stage::BeforeExceptions, |x| event(x, 0))?;
    x.require_cpl0()?;
    x.offer(EventClass::Lmsw, Stage::AfterPrivilege, |x| event(x, 0))?;
    let source = x.get(op, 0, 2)? as u16;
    let done = x.offer(EventClass::Lmsw, Stage::AfterOperands, |x| event(x, source))?;
    let old = x.cpu.cr0.0;
    let value = done.unwrap_or(old & !0xe | u64::from(source) & 0xf | old & 1);
    x.write_cr(0, value)?;
    x.written(0)?;
    Ok(Flow::Next)
}

/// SMSW.
pub(crate) fn smsw(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let event = Event::Smsw { register: register(op.operands[0]).ok() };
    x.offer(EventClass::Smsw, Stage::BeforeExceptions, |_| event)?;
    x.check_umip()?;
    let value = x.offer_rest(event)?.unwrap_or(x.cpu.cr0.0);
    x.put(op, 0, if op.is_memory() { 2 } else { op.size }, value)?;
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// XSETBV's last step: only XCR0, with x87 state, and AVX only with SSE.
    pub(crate) fn write_xcr(&mut self, index: u32, value: u64) -> Result {
        let supported = components::supported(self.cpu.model.features(), false);
        if index != 0 || value & 1 == 0 || value & 6 == 4 || value & !supported != 0 {
            return Err(Fault::GP0);
        }
        self.cpu.xcr0 = value;
        Ok(())
    }
}

/// XGETBV: XCR0, or with ECX = 1 those of its components that are in use.
pub(crate) fn xgetbv(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_xsave()?;
    let value = match x.cpu.gpr[Gpr::Rcx as usize] as u32 {
        0 => x.cpu.xcr0,
        1 if x.cpu.model.has(Feature::Xgetbv1) => x.cpu.xcr0 & x.in_use(true),
        _ => return Err(Fault::GP0),
    };
    x.put_edx_eax(value);
    Ok(Flow::Next)
}

/// XSETBV.
pub(crate) fn xsetbv(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_xsave()?;
    let (index, value) = (x.cpu.gpr[Gpr::Rcx as usize] as u32, x.edx_eax());
    if x.privileged(Event::Xsetbv { index, value })?.is_none() {
        x.write_xcr(index, value)?;
    }
    Ok(Flow::Next)
}
