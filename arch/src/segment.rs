//! Segment registers: selectors, hidden parts, and the two layouts of access rights that VMCS and VMCB use
//! (SDM Vol. 3C "Guest Register State", APM Vol. 2 "Segment State in the VMCB").

use crate::bits;

/// A segment selector: index in bits 15:3, TI in bit 2, RPL in bits 1:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Selector(pub u16);

impl Selector {
    /// Requested privilege level, 0 to 3.
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }
    /// Table indicator: true for the LDT.
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }
    /// Whether the selector is null (index and TI are 0; the RPL does not matter).
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }
    /// Byte offset of the descriptor in its table.
    pub const fn offset(self) -> u64 {
        (self.0 & !7) as u64
    }
}

bits! {
    /// Access rights in the VMCS's 32-bit layout: bits 3:0 type, 4 S, 6:5 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable.
    pub struct AccessRights(u32) {
        ACCESSED = 0, "accessed (code and data)";
        WRITABLE = 1, "writable data or readable code";
        EXPAND_DOWN = 2, "expand-down data or conforming code";
        CODE = 3, "executable";
        S = 4, "code or data, not a system descriptor";
        P = 7, "present";
        AVL = 12, "available to software";
        L = 13, "64-bit code";
        DB = 14, "default operation size, or big stack";
        G = 15, "limit counts 4 KiB units";
        UNUSABLE = 16, "segment register is unusable";
    }
}

impl AccessRights {
    /// Bits that must be 0 in a VMCS: 31:17 and 11:8.
    pub const RESERVED: u32 = 0xfffe_0f00;

    /// Type field, 0 to 15.
    pub const fn kind(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// Descriptor privilege level, 0 to 3.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }
    /// Whether the register may be used (bit 16 clear).
    pub const fn is_usable(self) -> bool {
        self.0 & Self::UNUSABLE.0 == 0
    }
    /// From the VMCB's 12-bit attribute layout (bits 7:0 as here, 8 AVL, 9 L, 10 D/B, 11 G).
    /// A segment that is not present becomes unusable too.
    pub const fn from_vmcb(attrib: u16) -> Self {
        let a = attrib as u32;
        let unusable = if a & 0x80 == 0 { Self::UNUSABLE.0 } else { 0 };
        Self(a & 0xff | (a & 0xf00) << 4 | unusable)
    }
    /// To the VMCB's 12-bit attribute layout; an unusable segment becomes not present.
    pub const fn to_vmcb(self) -> u16 {
        let a = (self.0 & 0xff | self.0 >> 4 & 0xf00) as u16;
        if self.is_usable() { a } else { a & !0x80 }
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Segment {
    /// The visible selector.
    pub selector: Selector,
    /// Access rights of the loaded descriptor.
    pub rights: AccessRights,
    /// Limit in bytes (granularity already applied).
    pub limit: u32,
    /// Base linear address.
    pub base: u64,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of the last valid byte.
    pub limit: u16,
}

/// The eight segment registers, in the order in which VMCS encodings list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

impl SegmentName {
    /// All eight, in VMCS order.
    pub const ALL: [Self; 8] =
        [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs, Self::Ldtr, Self::Tr];
}
