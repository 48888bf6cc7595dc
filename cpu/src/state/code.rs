//! How the running code is decoded and where it lies.

use super::Cpu;
use rootmode_arch::{AccessRights, Cr0, Cr4, Efer, Feature, Linear, RFlags, SegmentName, Vendor};
use rootmode_mmu::{Access, PhysicalMemory, translate};

impl Cpu {
    /// Whether the processor runs 64-bit code.
    pub const fn is_64_bit(&self) -> bool {
        self.efer.contains(Efer::LMA)
            && self.segments[SegmentName::Cs as usize].rights.contains(AccessRights::L)
    }

    /// Default operand and address size of the running code in bits: 16, 32 or 64.
    pub const fn code_bits(&self) -> u8 {
        if self.is_64_bit() {
            64
        } else if self.segments[SegmentName::Cs as usize].rights.contains(AccessRights::DB) {
            32
        } else {
            16
        }
    }

    /// How the running code is decoded.
    pub(crate) fn code_mode(&self) -> crate::decode::CodeMode {
        crate::decode::CodeMode { bits: self.code_bits(), amd: self.model.vendor() == Vendor::Amd }
    }

    /// The linear address of the instruction at RIP.
    pub(crate) const fn code_address(&self) -> Linear {
        if self.is_64_bit() {
            Linear(self.rip)
        } else {
            Linear(self.segments[SegmentName::Cs as usize].base.wrapping_add(self.rip) & 0xffff_ffff)
        }
    }

    /// How many bytes of code there are from RIP on. `None`: RIP is outside (not canonical, beyond the segment's limit).
    pub(crate) const fn code_room(&self) -> Option<u64> {
        if self.is_64_bit() {
            return if Linear(self.rip).is_canonical(self.linear_width()) { Some(u64::MAX) } else { None };
        }
        let limit = self.segments[SegmentName::Cs as usize].limit as u64;
        if self.rip > limit { None } else { Some(limit - self.rip + 1) }
    }

    /// The bytes at CS:RIP, and how many there are: 15, or fewer where a fetch of more would fault.
    pub fn code_bytes(&self, memory: &mut PhysicalMemory) -> ([u8; 15], usize) {
        let mut bytes = [0; 15];
        let room = self.code_room().unwrap_or(0).min(15) as usize;
        let first = self.code_address();
        let second = self.published.second_stage;
        let mut count = 0;
        while count < room {
            let at = Linear(first.0.wrapping_add(count as u64));
            let Ok(found) = translate(memory, &self.paging, &second, at, Access::fetch(self.cpl)) else {
                break;
            };
            let here = (4096 - at.page_offset() as usize).min(room - count);
            memory.read(found.host, &mut bytes[count..count + here]);
            count += here;
        }
        (bytes, count)
    }

    /// Moves RIP behind an instruction of `length` bytes; outside 64-bit mode it has 32 bits.
    pub const fn advance_rip(&mut self, length: u64) {
        let next = self.rip.wrapping_add(length);
        self.rip = if self.is_64_bit() { next } else { next & 0xffff_ffff };
    }

    /// Whether the processor runs in protected mode (compatibility mode included) but not in virtual-8086 mode.
    pub const fn is_protected(&self) -> bool {
        self.cr0.contains(Cr0::PE) && self.flags & RFlags::VM.0 == 0
    }

    /// Bits of a canonical address in a system register or a descriptor table's base: 57 wherever the processor can have
    /// 57-bit addresses, whatever CR4.LA57 says (SDM Vol. 1 "Canonical Addressing").
    pub fn register_width(&self) -> u32 {
        if self.model.has(Feature::La57) { 57 } else { 48 }
    }

    /// Bits of a canonical linear address: 48 or 57.
    pub const fn linear_width(&self) -> u32 {
        if self.cr4.contains(Cr4::LA57) { 57 } else { 48 }
    }
}
