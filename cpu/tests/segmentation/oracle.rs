//! Segmentation as the manual tells it, byte by byte (SDM Vol. 3A "Segment Descriptors", "Limit Checking", "Type Checking",
//! "Privilege Levels", "Segmentation in IA-32e Mode"; Vol. 2 "MOV—Move", "JMP—Jump"). Nothing here comes from the processor.

/// How the processor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Compatibility,
    Long,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] = [
        Self::Real,
        Self::Virtual8086,
        Self::Protected16,
        Self::Protected32,
        Self::Compatibility,
        Self::Long,
    ];

    /// Segments come from descriptors.
    pub(crate) const fn has_descriptors(self) -> bool {
        !matches!(self, Self::Real | Self::Virtual8086)
    }

    /// Code is 16 bits wide by default.
    pub(crate) const fn is_16_bit(self) -> bool {
        matches!(self, Self::Real | Self::Virtual8086 | Self::Protected16)
    }

    /// IA-32e mode, which needs paging.
    pub(crate) const fn is_ia32e(self) -> bool {
        matches!(self, Self::Compatibility | Self::Long)
    }
}

/// An exception: vector, error code, and for #PF the address.
pub(crate) type Raised = (u8, Option<u32>, u64);

const SS_FAULT: u8 = 12;
const GP: u8 = 13;
const NP: u8 = 11;
const PF: u8 = 14;

/// The registers by their numbers in instructions.
pub(crate) const SS: usize = 2;
const FS: usize = 4;

/// A segment descriptor taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) base: u64,
    /// The last byte's offset, with the granularity applied.
    pub(crate) limit: u64,
    /// The type field.
    pub(crate) kind: u8,
    /// Code or data, not a system segment or a gate.
    pub(crate) ordinary: bool,
    pub(crate) dpl: u8,
    pub(crate) present: bool,
    pub(crate) long: bool,
    pub(crate) big: bool,
    /// Access rights as LAR shows them, shifted right by 8.
    pub(crate) rights: u32,
}

impl Descriptor {
    pub(crate) fn of(bytes: [u8; 8]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |n, byte| n * 256 + u64::from(*byte));
        let raw_limit = number(&bytes[0..2]) + 65536 * u64::from(bytes[6] % 16);
        let granular = bytes[6] >= 128;
        Self {
            base: number(&bytes[2..5]) + u64::from(bytes[7]) * (1 << 24),
            limit: if granular { raw_limit * 4096 + 4095 } else { raw_limit },
            kind: bytes[5] % 16,
            ordinary: bytes[5] / 16 % 2 == 1,
            dpl: bytes[5] / 32 % 4,
            present: bytes[5] >= 128,
            long: bytes[6] / 32 % 2 == 1,
            big: bytes[6] / 64 % 2 == 1,
            rights: u32::from(bytes[5]) + u32::from(bytes[6] & 0xf0) * 256,
        }
    }

    pub(crate) const fn is_code(self) -> bool {
        self.kind >= 8
    }
    /// Data that grows towards lower addresses.
    pub(crate) const fn expands_down(self) -> bool {
        matches!(self.kind, 4..=7)
    }
    pub(crate) const fn is_conforming(self) -> bool {
        matches!(self.kind, 12..=15)
    }
    pub(crate) const fn is_writable(self) -> bool {
        matches!(self.kind, 2 | 3 | 6 | 7)
    }
    pub(crate) const fn is_readable(self) -> bool {
        !self.is_code() || matches!(self.kind, 10 | 11 | 14 | 15)
    }

    /// Whether the byte at `offset` belongs to the segment.
    pub(crate) const fn holds(self, offset: u64) -> bool {
        if self.expands_down() {
            let end = if self.big { 0xffff_ffff } else { 0xffff };
            offset > self.limit && offset <= end
        } else {
            offset <= self.limit
        }
    }
}

/// What a segment register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// A null selector was loaded.
    Null,
    /// Real and virtual-8086 mode: base and limit.
    Plain(u64, u64),
    Loaded(Descriptor),
}

/// The two tables: what `index` names, if the table has it.
pub(crate) struct Tables<'a> {
    pub(crate) global: &'a [[u8; 8]],
    pub(crate) global_limit: u64,
    pub(crate) local: &'a [[u8; 8]],
    /// `None`: LDTR is not usable.
    pub(crate) local_limit: Option<u64>,
}

impl Tables<'_> {
    /// # Errors
    /// #GP(selector): the descriptor does not lie within the table.
    pub(crate) fn find(&self, selector: u16) -> Result<Descriptor, Raised> {
        let index = usize::from(selector / 8);
        let (table, limit) = match selector / 4 % 2 {
            0 => (self.global, Some(self.global_limit)),
            _ => (self.local, self.local_limit),
        };
        let whole = limit.is_some_and(|limit| index as u64 * 8 + 7 <= limit);
        if whole { Ok(Descriptor::of(table[index])) } else { Err(named(GP, selector)) }
    }
}

/// An exception that names a selector.
fn named(vector: u8, selector: u16) -> Raised {
    (vector, Some(u32::from(selector) / 4 * 4), 0)
}

/// MOV to the segment register numbered `target` at `cpl`; `old_limit` is what real mode keeps.
pub(crate) fn load(
    mode: Mode,
    cpl: u8,
    target: usize,
    selector: u16,
    old_limit: u64,
    tables: &Tables<'_>,
) -> Result<Register, Raised> {
    match mode {
        Mode::Real => return Ok(Register::Plain(u64::from(selector) * 16, old_limit)),
        Mode::Virtual8086 => return Ok(Register::Plain(u64::from(selector) * 16, 0xffff)),
        _ => {}
    }
    let rpl = (selector % 4) as u8;
    if selector < 4 {
        let allowed = target != SS || mode == Mode::Long && cpl != 3 && rpl == cpl;
        return if allowed { Ok(Register::Null) } else { Err((GP, Some(0), 0)) };
    }
    let found = tables.find(selector)?;
    if target == SS {
        if rpl != cpl || !found.ordinary || found.is_code() || !found.is_writable() || found.dpl != cpl {
            return Err(named(GP, selector));
        }
        if !found.present {
            return Err(named(SS_FAULT, selector));
        }
        return Ok(Register::Loaded(found));
    }
    if !found.ordinary || !found.is_readable() {
        return Err(named(GP, selector));
    }
    if !found.is_conforming() && (rpl > found.dpl || cpl > found.dpl) {
        return Err(named(GP, selector));
    }
    if found.present { Ok(Register::Loaded(found)) } else { Err(named(NP, selector)) }
}

/// A far JMP to a code segment: what CS holds then. The selector does not name a system descriptor.
pub(crate) fn jump(
    mode: Mode,
    cpl: u8,
    selector: u16,
    offset: u64,
    tables: &Tables<'_>,
) -> Result<Descriptor, Raised> {
    if selector < 4 {
        return Err((GP, Some(0), 0));
    }
    let found = tables.find(selector)?;
    let rpl = (selector % 4) as u8;
    let level = if found.is_conforming() { found.dpl <= cpl } else { rpl <= cpl && found.dpl == cpl };
    let both_sizes = mode.is_ia32e() && found.long && found.big;
    if !found.is_code() || !level || both_sizes {
        return Err(named(GP, selector));
    }
    if !found.present {
        return Err(named(NP, selector));
    }
    let to_long = mode.is_ia32e() && found.long;
    if !to_long && !found.holds(offset) {
        return Err((GP, Some(0), 0));
    }
    Ok(found)
}

/// An access of `size` bytes at `offset` through the register numbered `number`: the linear addresses of its bytes.
/// AMD's parts, as they were seen to (the native differential), also want the offset in FS and GS to be canonical.
pub(crate) fn access(
    mode: Mode,
    amd: bool,
    number: usize,
    register: Register,
    offset: u64,
    size: u64,
    write: bool,
) -> Result<Vec<u64>, Raised> {
    let refused = (if number == SS { SS_FAULT } else { GP }, Some(0), 0);
    if mode == Mode::Long {
        let base = match register {
            Register::Loaded(descriptor) if number >= FS => descriptor.base,
            _ => 0,
        };
        let bytes: Vec<u64> = (0..size).map(|n| base.wrapping_add(offset).wrapping_add(n)).collect();
        let canonical = |address: &u64| *address < 1 << 47 || *address >= u64::MAX << 47;
        if amd && number >= FS && !canonical(&offset) {
            return Err(refused);
        }
        return if bytes.iter().all(canonical) { Ok(bytes) } else { Err(refused) };
    }
    let mut bytes = Vec::new();
    for at in offset..offset + size {
        let (base, inside) = match register {
            Register::Null => return Err(refused),
            Register::Plain(base, limit) => (base, at <= limit),
            Register::Loaded(descriptor) => {
                let allowed = if write { descriptor.is_writable() } else { descriptor.is_readable() };
                (descriptor.base, allowed && descriptor.holds(at))
            }
        };
        if !inside {
            return Err(refused);
        }
        bytes.push((base + at) % (1 << 32));
    }
    Ok(bytes)
}

/// What paging says of the bytes of an access when the first `mapped` bytes of the address space are present and open to all.
pub(crate) fn page(bytes: &[u64], mapped: u64, cpl: u8, write: bool) -> Result<(), Raised> {
    match bytes.iter().find(|address| **address >= mapped) {
        Some(address) => Err((PF, Some(u32::from(write) * 2 + u32::from(cpl == 3) * 4), *address)),
        None => Ok(()),
    }
}
