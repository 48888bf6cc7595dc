//! A batch of cases as bytes, the way the ROM walks them.
//!
//! First the fields that every case starts from at zero: their number, then their encodings. Then each case: identifier,
//! number of memory words, number of fields, way of launching, and the memory words and fields themselves, each a 32-bit address or
//! encoding and a 64-bit value. The identifier `FFFF_FFFF` ends the batch. Little-endian throughout.

/// Bytes of a case's header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of one memory word or field.
pub const ENTRY_BYTES: usize = 12;

/// How a guest is launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// VMLAUNCH (or VMRUN) in 64-bit mode.
    #[default]
    Launch = 0,
    /// VMRESUME of a VMCS whose launch state is clear.
    Resume = 1,
    /// VMLAUNCH right after MOV SS.
    AfterMovSs = 2,
    /// VMLAUNCH without a current VMCS.
    WithoutVmcs = 3,
    /// VMLAUNCH in 32-bit protected mode with PAE paging.
    Legacy = 4,
}

/// What one launch needs: words that are stored into memory, and fields that are written to the VMCS.
///
/// An AMD case has no fields: its VMCB is memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Address and value of each 64-bit word, in the order in which they are stored.
    pub pokes: Vec<(u32, u64)>,
    /// Encoding and value of each VMCS field that is not zero.
    pub fields: Vec<(u32, u64)>,
    /// How the guest is launched.
    pub way: Way,
}

impl Case {
    /// Bytes that the case takes in a batch.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + ENTRY_BYTES * (self.pokes.len() + self.fields.len())
    }
}

/// Bytes of a batch beside its cases, for `zeroed` fields.
#[must_use]
pub fn frame_bytes(zeroed: usize) -> usize {
    4 + 4 * zeroed + 4
}

/// Lays the cases out one after the other; each is called by its identifier in the transcript.
#[must_use]
pub fn encode<'a>(zeroed: &[u32], cases: impl IntoIterator<Item = (u32, &'a Case)>) -> Vec<u8> {
    let mut bytes = (zeroed.len() as u32).to_le_bytes().to_vec();
    for encoding in zeroed {
        bytes.extend(encoding.to_le_bytes());
    }
    for (id, case) in cases {
        for word in [id, case.pokes.len() as u32, case.fields.len() as u32, case.way as u32] {
            bytes.extend(word.to_le_bytes());
        }
        for &(key, value) in case.pokes.iter().chain(&case.fields) {
            bytes.extend(key.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes.extend([0xFF; 4]);
    bytes
}
