//! An SEV-ES guest of our own, and the hypervisor that runs it without seeing its registers: GHCB MSR protocol, #VC, and the
//! GHCB page for CPUID, MSRs and ports.
//!
//! Facts of the protocol are those of "SEV-ES Guest-Hypervisor Communication Block Standardization" (56421 rev. 2.03),
//! "GHCB MSR Protocol" and "GHCB Layout". The guest checks every answer, and ends with the number of the first one that is
//! wrong, or 0.

mod hypervisor;
mod program;
mod protocol;

use rootmode_arch::{Efer, Feature, FeatureSet, SegmentName, Vendor, encryption, msr};
use rootmode_cpu::Model;
use rootmode_svm::vmcb::{Field, Intercept, Intercepts, NestedControl, VirtExt, Vmcb, Vmsa};
use rootmode_svm::{Access, Msrpm};

use super::layout::*;
use super::{GuestError, GuestImage, l2, tables};

/// The VMSA, in L1's memory.
const VMSA: u64 = HOST_VMCB + 0x1000;
/// The GHCB, in the guest's: the one page that is not encrypted.
const GHCB: u64 = 0xa000;
/// What the guest prints.
pub const TEXT: &str = "Hello from an SEV-ES guest\n";
/// What L1 answers to IN.
const INPUT: i32 = 0x5a;
/// An MSR of L1's making, which keeps what is written to it.
const KEPT_MSR: u32 = msr::IA32_STAR;

/// The processor that the guest needs: `max-amd,+sev-es`.
pub fn model() -> Model {
    let features = [Feature::Sme, Feature::Sev, Feature::SevEs];
    let all: FeatureSet = Model::max_amd().features().with_all(&features);
    Model::new(Vendor::Amd, all)
}

/// The guest and its hypervisor.
///
/// # Errors
/// [`GuestError`] if the programs did not fit their places.
pub fn image() -> Result<GuestImage, GuestError> {
    let mut image = GuestImage::new(Vendor::Amd);
    image.place("L1's page tables", L1_PML4, tables::l1_paging(), 0x4000)?;
    image.place("L1's GDT", L1_GDT, tables::gdt(L1_TSS), 0x800)?;
    image.place("the nested page tables", SECOND_STAGE, second_stage(), 0x4000)?;
    image.place("the VMCB", CONTROL, vmcb().as_bytes().to_vec(), 0x1000)?;
    image.place("the VMSA", VMSA, vmsa().as_bytes().to_vec(), 0x1000)?;
    image.place("the MSR permission map", MSR_MAP, msr_map(), 0x2000)?;
    image.place("the I/O permission map", IO_MAP, vec![0xff; 0x3000], 0x3000)?;
    image.place("L1's code", L1_CODE, hypervisor::code()?, (VMXON_REGION - L1_CODE) as usize)?;
    image.place("the guest's page tables", L2_BASE + L2_PML4, guest_paging(), 0x4000)?;
    image.place("the guest's GDT", L2_BASE + L2_GDT, tables::gdt(L2_TSS), 0x1000)?;
    image.place("the guest's IDT", L2_BASE + L2_IDT, tables::idt(&[(29, L2_HANDLERS)]), 0x1000)?;
    image.place("the #VC handler", L2_BASE + L2_HANDLERS, program::handler()?, 0x1000)?;
    image.place("the guest's program", L2_BASE + L2_CODE, program::code()?, (WINDOW - L2_CODE) as usize)?;
    Ok(image)
}

/// The guest's tables, all of it encrypted but for the GHCB.
fn guest_paging() -> Vec<u8> {
    let mut bytes = tables::l2_paging();
    for (n, entry) in bytes.chunks_exact_mut(8).enumerate() {
        let shared = n == 3 * 512 + (GHCB >> 12) as usize;
        // Bit 51 is bit 3 of byte 6.
        if entry[0] & 1 != 0 && !shared {
            entry[6] |= 1 << (encryption::C_BIT - 48);
        }
    }
    bytes
}

/// The first page of the window is mapped when it is touched.
fn second_stage() -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in 1..4 {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&(SECOND_STAGE + level * 0x1000 | 7).to_le_bytes());
        bytes.extend(page);
    }
    for page in 0..L2_MEMORY >> 12 {
        let entry = if page == WINDOW >> 12 { 0 } else { L2_BASE + (page << 12) | 7 };
        bytes.extend(entry.to_le_bytes());
    }
    bytes
}

fn vmcb() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let intercepts = [
        Intercept::CPUID,
        Intercept::HLT,
        Intercept::IOIO_PROT,
        Intercept::MSR_PROT,
        Intercept::VMRUN,
        Intercept::VMMCALL,
        Intercept::SHUTDOWN,
    ];
    vmcb.set_intercepts(intercepts.into_iter().fold(Intercepts::NONE, Intercepts::with));
    let paging = NestedControl::NP_ENABLE | NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    for (field, value) in [
        (Field::IopmBase, IO_MAP),
        (Field::MsrpmBase, MSR_MAP),
        (Field::Asid, 1),
        (Field::NestedControl, paging.0),
        (Field::NestedCr3, SECOND_STAGE),
        (Field::VirtExt, VirtExt::LBR_ENABLE.0),
        (Field::VmsaPointer, VMSA),
    ] {
        vmcb.set(field, value);
    }
    vmcb
}

/// What the launch commands of a security processor would have encrypted and measured.
fn vmsa() -> Vmsa {
    let mut vmsa = Vmsa::zeroed();
    for (field, value) in [
        (Field::GdtrBase, L2_GDT),
        (Field::GdtrLimit, 39),
        (Field::IdtrBase, L2_IDT),
        (Field::IdtrLimit, 511),
        (Field::Efer, (Efer::SVME | Efer::LME | Efer::LMA | Efer::NXE).0),
        (Field::Cr0, 0x8000_0031),
        (Field::Cr3, L2_PML4 | 1 << encryption::C_BIT),
        (Field::Cr4, 0x20),
        (Field::Dr6, 0xffff_0ff0),
        (Field::Dr7, 0x400),
        (Field::Rflags, 2),
        (Field::Rip, L2_CODE),
        (Field::Rsp, L2_STACK),
        (Field::GPat, 0x0007_0406_0007_0406),
        (Field::Xcr0, 1),
        (Field::Mxcsr, 0x1f80),
        (Field::X87Fcw, 0x37f),
        (Field::X87Ftw, 0xffff),
    ] {
        vmsa.set(field, value);
    }
    for name in SegmentName::ALL {
        let segment = l2::segment(name);
        let [selector, attrib, limit, base] = rootmode_svm::vmcb::segment_fields(name);
        vmsa.set(selector, segment.selector.0.into());
        vmsa.set(attrib, segment.rights.to_vmcb().into());
        vmsa.set(limit, segment.limit.into());
        vmsa.set(base, segment.base);
    }
    vmsa
}

/// Every MSR but the one that the guest talks through.
fn msr_map() -> Vec<u8> {
    let mut map = Msrpm::filled(true);
    for access in [Access::Read, Access::Write] {
        map.assign(msr::SEV_ES_GHCB, access, false);
    }
    map.as_bytes().to_vec()
}
#[cfg(test)]
mod tests {
    use super::hypervisor::MALFORMED;
    use super::program::Wrong;
    use super::protocol::ghcb;
    use super::*;
    use crate::transparency::board_of;
    use rootmode_arch::choices::Tame;
    use rootmode_arch::record::{Payload, Record, Stop};
    use rootmode_arch::{Hardware, HostPhysical};
    use rootmode_cpu::board::Board;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Ports(Arc<Mutex<Vec<u8>>>);
    impl rootmode_arch::record::Observer for Ports {
        fn observe(&mut self, record: &Record) {
            if let Payload::Port { port: 0xe9, value, .. } = record.payload {
                self.0.lock().unwrap().push(value as u8);
            }
        }
    }

    fn run(change: impl FnOnce(&mut Board)) -> (Stop, String, Vec<(u64, u64)>) {
        let mut board = board_of(&image().unwrap(), model(), Hardware::Tame, Box::new(Tame));
        let ports = Ports::default();
        board.set_observer(Some(Box::new(ports.clone())));
        change(&mut board);
        let stop = board.run(100_000).stop;
        let count = |code| board.memory.read_u64(HostPhysical(COUNTS + code * 8));
        let counts = (0..COUNTED).map(|code| (code, count(code))).filter(|(_, n)| *n != 0).collect();
        let text = String::from_utf8(ports.0.lock().unwrap().clone()).unwrap();
        (stop, text, counts)
    }

    #[test]
    fn the_guest_gets_every_answer_through_its_ghcb_and_ends_well() {
        let (stop, text, counts) = run(|_| {});
        assert_eq!((stop, text.as_str()), (Stop::Requested(0), TEXT));
        // CPUID, WRMSR, RDMSR, IN and each byte through the GHCB; three requests of the MSR protocol.
        let exits = 4 + TEXT.len() as u64 + 3;
        assert_eq!(counts, [(0x78, 1), (0x400, 1), (0x403, exits)]);
    }

    #[test]
    fn a_guest_without_its_ghcb_ends_with_what_it_missed() {
        // The request bits of the handler are gone: L1 refuses to guess.
        let (stop, ..) = run(|board| {
            let code = program::handler().unwrap();
            let bits = (ghcb::REQUEST | ghcb::REGISTERS).to_le_bytes();
            let at = code.windows(8).position(|bytes| bytes == bits).unwrap();
            board.memory.write_u64(HostPhysical(L2_BASE + L2_HANDLERS + at as u64), 0);
        });
        assert_eq!(stop, Stop::Requested(MALFORMED));
        // An IN that nobody intercepts reads no port at all.
        let (stop, ..) = run(|board| board.memory.write(HostPhysical(IO_MAP), &[0; 0x80]));
        assert_eq!(stop, Stop::Requested(Wrong::Input as u32));
    }
}
