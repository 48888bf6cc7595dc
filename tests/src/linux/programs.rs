//! Generated hypervisors for Linux's real KVM: the file that the client gets, and the judgement of what it says.
//!
//! The file is of little-endian words of 64 bits and of bytes: RIP, RSP, CR0, CR3, CR4, EFER, GDTR, IDTR (base and limit), base of the
//! TSS, bytes of memory, where the log's length and the log are; lists (a length, then words) of CPUID's entries, seven words each,
//! and of the pages that are compared; what every program's memory starts with; the number of programs. Then of each program what
//! it has elsewhere in memory, and four lists that it has to yield on the processor itself: ports, log, registers, digests of pages.

use rootmode::guests::layout::{
    CONTROL, COUNTS, HOST_VMCB, L1_DATA, L1_LOG, L2_BASE, L2_PML4, SECOND_STAGE_LEAVES, WINDOW, WINDOW_PAGES,
    data,
};
use rootmode::guests::{GuestImage, Workload, assemble_logged};
use rootmode::transparency::{LIMIT, Run, compare, facts, model, run_bare, run_in_vm, start_state};
use rootmode_arch::choices::{Seeded, Tame};
use rootmode_arch::record::Payload;
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::vm::supported;

use super::rows::Vendor;

/// What L2 does at most in a program.
const OPERATIONS: u64 = 40;
/// What a program's memory starts with: L1's part, L2's tables and code up to its window's end.
const RANGES: [(usize, usize); 2] =
    [(0, 0x3_3000), (L2_BASE as usize, (L2_BASE + WINDOW + WINDOW_PAGES * 0x1000) as usize)];

/// The programs' file.
pub(super) struct Programs {
    pub(super) file: Vec<u8>,
    /// Where the model of KVM differs from the processor.
    pub(super) failures: Vec<String>,
}

impl Vendor {
    const fn arch(self) -> rootmode_arch::Vendor {
        match self {
            Self::Intel => rootmode_arch::Vendor::Intel,
            Self::Amd => rootmode_arch::Vendor::Amd,
        }
    }
}

/// Program number `seed`. Reading the time always exits to L1, since L2's is another one on each machine.
fn program(vendor: Vendor, seed: u64) -> Result<GuestImage, String> {
    let mut workload = Workload::draw(vendor.arch(), 1 + seed % OPERATIONS, &mut Seeded::new(seed));
    workload.controls.rdtsc = true;
    assemble_logged(&workload).map_err(|error| error.to_string())
}

/// Pages that are compared at the end: L1's variables, its counts, the second stage's leaves, L2's tables and data. A VMCS's format
/// is the processor's, a VMCB's is everybody's.
fn pages(vendor: Vendor) -> Vec<u64> {
    let mut pages = vec![L1_DATA, COUNTS, COUNTS + 0x1000, COUNTS + 0x2000, SECOND_STAGE_LEAVES];
    if vendor == Vendor::Amd {
        pages.extend([CONTROL, HOST_VMCB]);
    }
    pages.extend((0..8).map(|page| L2_BASE + L2_PML4 + page * 0x1000));
    pages.extend((0..WINDOW_PAGES).map(|page| L2_BASE + WINDOW + page * 0x1000));
    pages
}

/// What the client makes of a page as well.
fn digest(page: &[u8]) -> u64 {
    page.chunks_exact(8).fold(0xcbf2_9ce4_8422_2325, |digest: u64, word| {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        (digest ^ word).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What a run on the processor itself leaves to be compared.
fn parts(run: &Run, pages: &[u64]) -> [Vec<u64>; 4] {
    let ports = facts(run).filter_map(|record| match record.payload {
        Payload::Port { port, size, write, value } => {
            Some(u64::from(port) | u64::from(size) << 16 | u64::from(write) << 24 | u64::from(value) << 32)
        }
        _ => None,
    });
    let length = run.memory.word(L1_DATA + data::LOGGED as u64);
    let log = (0..length).map(|number| run.memory.word(L1_LOG + 8 * number)).collect();
    let digests = pages.iter().map(|page| digest(run.memory.page(page / 0x1000))).collect();
    [ports.collect(), log, run.registers[..16].to_vec(), digests]
}

fn push(file: &mut Vec<u8>, words: &[u64]) {
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn list(file: &mut Vec<u8>, words: &[u64]) {
    push(file, &[words.len() as u64]);
    push(file, words);
}

fn memory(image: &GuestImage) -> Vec<u8> {
    let mut memory = vec![0; image.memory as usize];
    for (address, bytes) in &image.segments {
        memory[*address as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    memory
}

impl Programs {
    /// The first `count` programs for `vendor`.
    pub(super) fn new(vendor: Vendor, count: u64) -> Result<Self, String> {
        let model = model(vendor.arch());
        let first = program(vendor, 0)?;
        let start = start_state(&first, model.clone());
        let mut file = Vec::new();
        push(&mut file, &[start.rip, first.stack, start.cr0.0, start.cr3.0, start.cr4.0, start.efer.0]);
        push(&mut file, &[first.gdt.base, first.gdt.limit.into(), first.idt.base, first.idt.limit.into()]);
        push(&mut file, &[first.tss, first.memory, L1_DATA + data::LOGGED as u64, L1_LOG]);
        let mut leaves = Vec::new();
        for leaf in supported(&model).iter().filter(|leaf| leaf.function >> 28 != 4) {
            leaves.extend(
                [leaf.function, leaf.index, leaf.flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
                    .map(u64::from),
            );
        }
        list(&mut file, &leaves);
        let pages = pages(vendor);
        list(&mut file, &pages);
        let base = memory(&first);
        push(&mut file, &[RANGES.len() as u64]);
        for (from, to) in RANGES {
            push(&mut file, &[from as u64, (to - from) as u64]);
            file.extend(&base[from..to]);
        }
        push(&mut file, &[count]);
        let mut failures = Vec::new();
        for seed in 0..count {
            let image = program(vendor, seed)?;
            let own = memory(&image);
            let words = base.chunks_exact(8).zip(own.chunks_exact(8)).enumerate();
            let changed: Vec<(usize, &[u8])> =
                words.filter(|(_, (a, b))| a != b).map(|(at, (_, own))| (at * 8, own)).collect();
            push(&mut file, &[changed.len() as u64]);
            for (address, bytes) in changed {
                push(&mut file, &[address as u64, 8]);
                file.extend(bytes);
            }
            let bare = run_bare(&image, Box::new(Tame), LIMIT);
            for part in parts(&bare, &pages) {
                list(&mut file, &part);
            }
            let modelled = run_in_vm(&image, Box::new(Tame), Regressions::default(), LIMIT);
            let modelled = modelled.map_err(|error| format!("program {seed} in the model: {error}"))?;
            if let Some(difference) = compare(bare, modelled, vendor.arch()).differences.first() {
                failures.push(format!("program {seed} in the model: {difference:?}"));
            }
        }
        Ok(Self { file, failures })
    }
}

/// What is wrong in what the client said of `count` programs, and what it says at its end.
pub(super) fn judge(said: &[&str], count: u64) -> (Vec<String>, Vec<String>) {
    let mut failures: Vec<String> = said
        .iter()
        .filter(|line| line.starts_with("differs "))
        .map(|line| format!("program {line}"))
        .collect();
    failures.extend(said.iter().filter(|line| line.starts_with("failed ")).map(|line| (*line).to_owned()));
    let prefix = format!("generated {count} same ");
    let end: Vec<String> =
        said.iter().filter(|line| line.starts_with(&prefix)).map(|line| (*line).to_owned()).collect();
    if end.len() != 1 {
        failures.push(format!("no end of {count} programs"));
    }
    (failures, end)
}
