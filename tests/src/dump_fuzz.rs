//! Mutated dumps: whatever a text has become, reading it ends, does not panic and claims nothing impossible.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;
use rootmode_traces::dump::{
    Kernel, Parsed, VmcbSurroundings, VmcsSurroundings, parse, print_vmcb, print_vmcs,
};

use crate::documents::root;
use crate::table::Row;

/// What a fuzz run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Texts read.
    pub texts: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Dumps found in them.
    pub dumps: u64,
    /// Fields found in these.
    pub fields: u64,
    /// Places named as unreadable.
    pub unreadable: u64,
    /// Texts that made the reader panic or claim something impossible, and the first of them.
    pub failures: u64,
    /// Number of the first failing text: `case(seed, number)` is the text.
    pub first_failure: Option<u64>,
}

impl Outcome {
    fn plus(self, other: Self) -> Self {
        Self {
            texts: self.texts + other.texts,
            bytes: self.bytes + other.bytes,
            dumps: self.dumps + other.dumps,
            fields: self.fields + other.fields,
            unreadable: self.unreadable + other.unreadable,
            failures: self.failures + other.failures,
            first_failure: match (self.first_failure, other.first_failure) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// Reads `n` mutated texts on all cores. The outcome depends on `seed` and `n` alone.
///
/// # Panics
/// If the real dumps of the repository cannot be read.
pub fn fuzz(seed: u64, n: u64) -> Outcome {
    let corpus = corpus();
    (0..n).into_par_iter().map(|number| one(&corpus, seed, number)).reduce(Outcome::default, Outcome::plus)
}

/// The text with this number: for looking at a failure.
pub fn case(seed: u64, number: u64) -> String {
    mutated(&corpus(), seed, number)
}

/// The proof for `rootmode-tests full`.
///
/// # Errors
/// None; a proof's signature.
pub fn proof() -> Result<Vec<Row>, String> {
    const TEXTS: u64 = 1_000_000;
    let outcome = fuzz(0, TEXTS);
    let what = format!(
        "{TEXTS} mutated dumps, {} MB: {} dumps, {} fields, {} unreadable places",
        outcome.bytes >> 20,
        outcome.dumps,
        outcome.fields,
        outcome.unreadable
    );
    let promise = "0 panics, 0 impossible claims";
    Ok(vec![Row::new("dump-fuzz", &what, outcome.failures, promise, outcome.failures == 0)])
}

fn one(corpus: &[String], seed: u64, number: u64) -> Outcome {
    let text = mutated(corpus, seed, number);
    let read = catch_unwind(AssertUnwindSafe(|| parse(&text)));
    let mut outcome = Outcome { texts: 1, bytes: text.len() as u64, ..Outcome::default() };
    match read {
        Ok(parsed) if is_possible(&text, &parsed) => {
            outcome.dumps = parsed.dumps.len() as u64;
            outcome.unreadable = parsed.unreadable.len() as u64;
            for dump in &parsed.dumps {
                let vmcs = dump.vmcs().map_or(0, |v| v.fields.len());
                let vmcb = dump.vmcb().map_or(0, |v| v.fields.len());
                outcome.fields += (vmcs + vmcb) as u64;
            }
        }
        Ok(_) | Err(_) => {
            outcome.failures = 1;
            outcome.first_failure = Some(number);
        }
    }
    outcome
}

/// Every line is in the text, every value fits its field, a dump has a field.
fn is_possible(text: &str, parsed: &Parsed) -> bool {
    let lines = text.lines().count() as u64;
    let inside = |line: u32| (1..=lines).contains(&u64::from(line));
    let vmcs = parsed.dumps.iter().filter_map(|d| d.vmcs()).all(|v| {
        (!v.fields.is_empty() || v.effective_efer.is_some())
            && v.fields.iter().all(|(field, value)| {
                inside(value.line)
                    && value.value & !field.width().mask() == 0
                    && v.to_vmcs().get(*field) == Some(value.value)
            })
    });
    let vmcb = parsed.dumps.iter().filter_map(|d| d.vmcb()).all(|v| {
        !v.fields.is_empty()
            && v.fields.iter().all(|(key, value)| {
                inside(value.line) && (key.size == 8 || value.value >> (u32::from(key.size) * 8) == 0)
            })
    });
    let ordered = parsed.unreadable.windows(2).all(|w| w[0].line <= w[1].line);
    vmcs && vmcb && ordered && parsed.unreadable.iter().all(|u| inside(u.line))
}

/// The texts to begin with: the real dumps, printed dumps of every kernel, a list.
fn corpus() -> Vec<String> {
    let folder = root().join("tests/dumps/real");
    let mut texts = real_dumps(&folder);
    assert!(!texts.is_empty(), "no dumps in {}", folder.display());
    for kernel in Kernel::ALL {
        texts.push(print_vmcs(kernel, &VmcsSurroundings::default(), &|e| {
            u64::from(e).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                & if e >> 13 & 3 == 0 { 0xffff } else { 0xffff_ffff }
        }));
        let surroundings = VmcbSurroundings { address: 0x1234, host_cpu: 1 };
        texts.push(print_vmcb(kernel, &surroundings, &|offset, size| {
            u64::from(offset) & if size == 1 { 0xff } else { 0xffff }
        }));
    }
    texts.push(
        "cpu = intel-spr\nmaxphyaddr = 46\nGUEST_CR0 = 0x80000031 # on\nMSR 0x480 = 0xda040000000004\n\
         guest_rip: 1000h\n0x6802 = 4096\nvmcb.save.cr0 = 0x11\nvendor = amd\nasid = 1\ncs.attrib = 0x29b\n"
            .into(),
    );
    texts
}

fn real_dumps(folder: &Path) -> Vec<String> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    paths.retain(|p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read_to_string(p).ok()).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Pieces that readers of such texts stumble over.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "=",
    " = ",
    ": ",
    "0x",
    "ffffffffffffffff",
    "10000000000000000",
    "-1",
    "<br>",
    "\\n",
    "#012",
    "&#61;",
    "&lt;",
    "&",
    "=3D",
    "=\n",
    "=C2=A0",
    "[12.345] ",
    "[ T12] ",
    "<3>",
    "> ",
    "kvm_intel: ",
    "kernel: ",
    "(XEN) ",
    "SVM: ",
    "*** Guest State ***",
    "*** Host State ***",
    "VMCB Control Area:",
    "VMCS 0, last attempted VM-entry on CPU ",
    "EFER=",
    "RIP=",
    "CR0: actual=",
    "CS: ",
    "RAX=0 RBX=0",
    "hardware error 0x80000021",
    "FailEntry(",
    "msr 1 val 2",
    "0: msr=",
    "MSR guest autoload:",
    "GUEST_CR0 = ",
    "(effective)",
    "\u{1b}[31m",
    "\u{a0}",
    "\u{fffd}",
    "ß",
    "漢",
    "\0",
];

fn mutated(corpus: &[String], seed: u64, number: u64) -> String {
    let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
    random.next();
    let mut bytes = corpus[random.below(corpus.len())].clone().into_bytes();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len() + 1);
        let span = 1 + random.below(64);
        let end = bytes.len().min(at + span);
        match random.below(11) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            2 => {
                bytes.drain(at..end);
            }
            3 => bytes.truncate(at),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            5 | 6 => {
                let piece = PIECES[random.below(PIECES.len())].bytes();
                bytes.splice(at..at, piece);
            }
            7 => {
                let other = corpus[random.below(corpus.len())].as_bytes();
                let from = random.below(other.len());
                let to = other.len().min(from + 16 * span);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            8 => {
                // A line feed lost, or come.
                match bytes[at..].iter().position(|b| *b == b'\n') {
                    Some(found) => {
                        bytes.remove(at + found);
                    }
                    None => bytes.push(b'\n'),
                }
            }
            9 => {
                let piece = PIECES[random.below(PIECES.len())].repeat(span);
                bytes.splice(at..at, piece.into_bytes());
            }
            _ => bytes[at..end].reverse(),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn twenty_thousand_mutated_dumps_read_without_panic_or_impossible_claim() {
        let outcome = fuzz(1, 20_000);
        assert_eq!((outcome.failures, outcome.first_failure), (0, None));
        // The mutations leave something to read and break something.
        assert!(outcome.dumps > 15_000 && outcome.unreadable > 10_000, "{outcome:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_texts_and_the_same_outcome() {
        assert_eq!(case(7, 3), case(7, 3));
        assert_ne!(case(7, 3), case(8, 3));
        assert_eq!(fuzz(7, 200), fuzz(7, 200));
    }

    #[test]
    fn lines_of_megabytes_take_time_linear_in_their_length() {
        for piece in PIECES.iter().copied().chain([
            "CR0: actual=0x1, shadow=0x2, gh_mask=3 ",
            "VMCS 1 ",
            "RIP=1 RSP=2 ",
            "a ",
        ]) {
            let text = piece.replace('\n', " ").repeat((1 << 20) / piece.len());
            let start = Instant::now();
            parse(&text);
            // Quadratic would be minutes to hours.
            assert!(start.elapsed() < Duration::from_secs(20), "{piece:?}: {:?}", start.elapsed());
        }
    }
}
