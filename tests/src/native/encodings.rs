//! Every encoding of every Code, found mechanically: the opcode space is decoded, prefix by prefix and map by map.

use iced_x86::{Code, Decoder, DecoderOptions};
use rootmode_arch::choices::Seeded;
use std::collections::BTreeMap;

/// The fixed part of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Prefixes that select the Code, before REX or VEX.
    pub prefixes: &'static [u8],
    /// How the opcode is reached.
    pub map: Map,
    /// REX.W or VEX.W.
    pub wide: bool,
    /// The opcode.
    pub opcode: u8,
    /// The byte behind the opcode: ModRM, where the instruction has one.
    pub modrm: u8,
}

/// An opcode map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Opcodes behind these escape bytes.
    Legacy(&'static [u8]),
    /// A VEX prefix: map, pp and L.
    Vex(u8, u8, bool),
}

/// Prefixes that select among Codes.
const PREFIXES: [&[u8]; 9] =
    [&[], &[0x66], &[0xf2], &[0xf3], &[0x67], &[0x66, 0x67], &[0x66, 0xf2], &[0x66, 0xf3], &[0xf2, 0x67]];
const ESCAPES: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
/// Templates kept of one Code.
const KEPT: usize = 256;

impl Template {
    /// The bytes: `extra` prefixes first; `rxb` extends register numbers as REX.RXB and `vvvv` is VEX's register, in 64-bit
    /// code; then ModRM and `tail`.
    pub fn bytes(&self, bits: u32, extra: &[u8], rxb: u8, vvvv: u8, modrm: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = extra.to_vec();
        bytes.extend(self.prefixes);
        match self.map {
            Map::Legacy(escape) => {
                if bits == 64 && (self.wide || rxb != 0) {
                    bytes.push(0x40 | u8::from(self.wide) << 3 | rxb & 7);
                }
                bytes.extend(escape);
            }
            Map::Vex(map, pp, long) => {
                let (rxb, vvvv) = if bits == 64 { (rxb & 7, vvvv & 15) } else { (0, vvvv & 7) };
                let last = u8::from(self.wide) << 7 | (vvvv ^ 15) << 3 | u8::from(long) << 2 | pp;
                bytes.extend([0xc4, (rxb ^ 7) << 5 | map, last]);
            }
        }
        bytes.extend([self.opcode, modrm]);
        bytes.extend(tail);
        bytes.truncate(15);
        bytes
    }
}

/// The templates of every Code that the decoder knows in code of `bits` bits.
pub fn encodings(bits: u32, amd: bool) -> BTreeMap<Code, Vec<Template>> {
    let options = if amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
    let mut all: BTreeMap<Code, Vec<Template>> = BTreeMap::new();
    let mut seen: BTreeMap<Code, usize> = BTreeMap::new();
    let mut random = Seeded::new(0);
    for_each_template(bits, |template| {
        // VEX.vvvv has a register, or 0. The tail is a SIB byte whose index is neither that one nor, mostly, the destination, as
        // gathers want it.
        let (tail, registers): (_, &[u8]) = match template.map {
            Map::Legacy(_) => ([0; 10], &[0]),
            Map::Vex(..) => ([0x10; 10], &[1, 0]),
        };
        let code = registers.iter().find_map(|vvvv| {
            let bytes = template.bytes(bits, &[], 0, *vvvv, template.modrm, &tail);
            let code = Decoder::with_ip(bits, &bytes, 0, options).decode().code();
            (code != Code::INVALID).then_some(code)
        });
        let Some(code) = code else { return };
        let count = seen.entry(code).or_insert(0);
        *count += 1;
        let kept = all.entry(code).or_default();
        if kept.len() < KEPT {
            kept.push(template);
        } else {
            // A sample of all that there is, each as likely as the others.
            let at = random.next() as usize % *count;
            if at < KEPT {
                kept[at] = template;
            }
        }
    });
    all
}

fn for_each_template(bits: u32, mut each: impl FnMut(Template)) {
    let wides = if bits == 64 { 2 } else { 1 };
    // Every value for registers; one addressing form for memory.
    let modrms = || (0..8).map(|reg| reg << 3).chain(0xc0..=0xff_u8);
    for (prefixes, escape) in PREFIXES.iter().flat_map(|p| ESCAPES.iter().map(move |e| (*p, *e))) {
        for (wide, opcode) in (0..wides).flat_map(|wide| (0..=0xff_u8).map(move |opcode| (wide == 1, opcode)))
        {
            for modrm in modrms() {
                each(Template { prefixes, map: Map::Legacy(escape), wide, opcode, modrm });
            }
        }
    }
    for (map, pp, long) in (1..4).flat_map(|m| (0..4).flat_map(move |p| [(m, p, false), (m, p, true)])) {
        for (wide, opcode) in (0..2).flat_map(|wide| (0..=0xff_u8).map(move |opcode| (wide == 1, opcode))) {
            for modrm in (0..8).flat_map(|reg| [reg << 3, reg << 3 | 4, 0xc0 | reg << 3]) {
                each(Template { prefixes: &[], map: Map::Vex(map, pp, long), wide, opcode, modrm });
            }
        }
    }
}
