//! The registers that govern translation, and linear-address masking.

use rootmode_arch::{Cr0, Cr3, Cr4, Efer, Linear};

/// The paging mode (SDM Vol. 3A "Four Paging Modes", and paging off).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum PagingMode {
    /// CR0.PG = 0: linear addresses are guest-physical.
    #[default]
    None,
    /// 32-bit paging: two levels of 4-byte entries.
    Bits32 {
        /// CR4.PSE: 4-MByte pages.
        pse: bool,
    },
    /// PAE paging: PDPTE registers and two levels of 8-byte entries.
    Pae,
    /// 4-level paging.
    Level4,
    /// 5-level paging.
    Level5,
}

impl PagingMode {
    /// The mode that CR0.PG, CR4.PAE, EFER.LMA and CR4.LA57 select.
    pub const fn of(cr0: Cr0, cr4: Cr4, efer: Efer) -> Self {
        if !cr0.contains(Cr0::PG) {
            Self::None
        } else if efer.contains(Efer::LMA) {
            if cr4.contains(Cr4::LA57) { Self::Level5 } else { Self::Level4 }
        } else if cr4.contains(Cr4::PAE) {
            Self::Pae
        } else {
            Self::Bits32 { pse: cr4.contains(Cr4::PSE) }
        }
    }

    /// 4- or 5-level paging: EFER.LMA = 1.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::Level4 | Self::Level5)
    }
}

/// The registers that govern translation of linear addresses. The default is paging off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Paging {
    /// CR3.
    pub cr3: Cr3,
    /// The PDPTE registers, which PAE paging uses instead of CR3, except with nested paging. See [`super::load_pdptes`].
    pub pdptes: [u64; 4],
    /// The paging mode.
    pub mode: PagingMode,
    /// CR0.WP.
    pub write_protect: bool,
    /// EFER.NXE. Without effect in 32-bit paging.
    pub no_execute: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP.
    pub smap: bool,
    /// CR4.PCIDE.
    pub pcide: bool,
    /// CR4.PGE.
    pub global: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// CR4.PKE: protection keys for user pages. Without effect outside 4- and 5-level paging.
    pub protection_keys: bool,
    /// CR4.PKS: protection keys for supervisor pages. Without effect outside 4- and 5-level paging.
    pub supervisor_keys: bool,
    /// CR4.LAM_SUP.
    pub lam_supervisor: bool,
    /// Bit 8 of PML4 and PML5 entries is reserved (AMD) rather than ignored (Intel).
    pub top_global_reserved: bool,
    /// PKRU.
    pub pkru: u32,
    /// Bits 31:0 of IA32_PKRS.
    pub pkrs: u32,
    /// MAXPHYADDR, 32 to 52.
    pub physical_width: u8,
    /// The C-bit of memory encryption, as a mask: a bit of entries that is neither reserved nor part of the address.
    /// [`Self::cr3`] is without it. 0: there is none (APM Vol. 2 "Secure Memory Encryption").
    pub c_bit: u64,
}

impl Paging {
    /// The current PCID (0 with CR4.PCIDE = 0).
    pub const fn pcid(&self) -> u16 {
        if self.pcide { (self.cr3.0 & 0xfff) as u16 } else { 0 }
    }

    /// CR0.PG.
    pub const fn is_on(&self) -> bool {
        !matches!(self.mode, PagingMode::None)
    }

    /// Removes the metadata of a pointer of 64-bit mode: bits 62:57 or 62:48 become copies of the bit below them, bit 63
    /// stays, and is what the canonicality check then meets. For data accesses only; fetches, and addresses that
    /// registers of the system take, are not masked (SDM Vol. 1 "Linear-Address Masking (LAM)").
    #[inline]
    pub const fn untag(&self, pointer: Linear) -> Linear {
        let width = if pointer.0 >> 63 != 0 {
            match self.mode {
                PagingMode::Level4 if self.lam_supervisor => 48,
                PagingMode::Level5 if self.lam_supervisor => 57,
                _ => return pointer,
            }
        } else if !self.mode.is_long() {
            return pointer;
        } else if self.cr3.contains(Cr3::LAM_U57) {
            57
        } else if self.cr3.contains(Cr3::LAM_U48) {
            48
        } else {
            return pointer;
        };
        let extended = ((pointer.0 << (64 - width)) as i64 >> (64 - width)) as u64;
        Linear(extended & !(1 << 63) | pointer.0 & 1 << 63)
    }
}
