//! The law over drawn programs; refused entries; schedules.

use super::*;
use crate::guests::GuestImage;
use crate::guests::layout::{CONTROL, L1_FIELDS};
use rootmode_arch::Hardware;
use rootmode_arch::record::{Payload, Stop};
use rootmode_svm::vmcb::Field as VmcbField;
use rootmode_vmx::Field;

#[test]
fn the_tame_program_is_the_same_bare_and_hosted_on_both_vendors() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let comparison = Case::draw(vendor, 30, &mut Tame).compare(Regressions::NONE).unwrap();
        assert_eq!(comparison.differences, [], "{vendor:?}");
        assert_eq!(comparison.bare.stop, Stop::Requested(0));
        assert!(comparison.facts > 40, "{}", comparison.facts);
    }
}

#[test]
fn a_bare_program_prints_a_checksum_of_sixteen_digits() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let image = assemble(&Workload::draw(vendor, 30, &mut Tame)).unwrap();
        let run = run_bare(&image, Box::new(Tame), LIMIT);
        assert_eq!(run.stop, Stop::Requested(0));
        assert_eq!(run.output().trim_end().len(), 16, "{:?}", run.output());
    }
}

#[test]
fn drawn_programs_and_schedules_are_the_same_bare_and_hosted() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for seed in 0..40 {
            let comparison =
                Case::draw(vendor, 40, &mut Seeded::new(seed)).compare(Regressions::NONE).unwrap();
            assert_eq!(comparison.differences, [], "{vendor:?} seed {seed}");
            assert_eq!(comparison.bare.stop, Stop::Requested(0), "{vendor:?} seed {seed}");
        }
    }
}

#[test]
fn drawn_programs_are_the_same_bare_and_in_a_clients_vm() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for seed in 0..30 {
            let comparison =
                Case::draw(vendor, 40, &mut Seeded::new(seed)).compare_vm(Regressions::NONE).unwrap();
            assert_eq!(comparison.differences, [], "{vendor:?} seed {seed}");
            assert_eq!(comparison.bare.stop, Stop::Requested(0), "{vendor:?} seed {seed}");
        }
    }
}

#[test]
fn the_bytes_that_only_the_processor_knows_are_the_allowed_difference() {
    let allowed = |vendor| {
        let comparison = Case::draw(vendor, 30, &mut Tame).compare(Regressions::NONE).unwrap();
        comparison.allowed.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    assert_eq!(allowed(Vendor::Intel), [Allowed::VmcsRegion]);
    assert_eq!(allowed(Vendor::Amd), [Allowed::HostSaveArea]);
}

#[test]
fn no_schedule_of_l0_changes_what_a_single_vcpu_sees() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let image = assemble(&Workload::draw(vendor, 40, &mut Seeded::new(7))).unwrap();
        let tame = run_hosted(&image, Box::new(Tame), false, Regressions::NONE, LIMIT).unwrap();
        for seed in 0..10 {
            let run =
                run_hosted(&image, Box::new(Seeded::new(seed)), true, Regressions::NONE, LIMIT).unwrap();
            assert!(facts(&run).eq(facts(&tame)), "{vendor:?} schedule {seed}");
            assert_eq!(run.memory, tame.memory, "{vendor:?} schedule {seed}");
            let points =
                |run: &Run| run.records.iter().filter(|r| matches!(r.payload, Payload::Point { .. })).count();
            assert!(points(&run) > points(&tame), "the worker ran");
        }
    }
}

/// Replaces the value that L1 writes to a VMCS field.
fn with_field(image: &GuestImage, field: Field, value: u64) -> GuestImage {
    let mut image = image.clone();
    let table = image.segments.iter_mut().find(|(address, _)| *address == L1_FIELDS).unwrap();
    let row = table.1.chunks_mut(16).find(|row| row[4..8] == field.encoding().to_le_bytes()).unwrap();
    row[8..].copy_from_slice(&value.to_le_bytes());
    image
}

#[test]
fn a_broken_vmcs_is_refused_with_the_manuals_number_bare_and_hosted() {
    let image = assemble(&Workload::draw(Vendor::Intel, 5, &mut Tame)).unwrap();
    // L1 stops with the VM-instruction error in bits 15:8 above 0xf0, or with 0xf1 after an exit with bit 31 set.
    for (field, value, stop, code) in [
        (Field::Eptp, 0x2a01f, 0x7f0, 7),
        (Field::Vpid, 0, 0x7f0, 7),
        (Field::HostCr3, 1 << 60, 0x8f0, 8),
        (Field::HostTrSelector, 0, 0x8f0, 8),
        (Field::GuestRflags, 0, 0xf1, 0x8000_0021),
        (Field::GuestCr4, 0, 0xf1, 0x8000_0021),
    ] {
        let image = with_field(&image, field, value);
        let bare = run_bare(&image, Box::new(Tame), LIMIT);
        let hosted = run_hosted(&image, Box::new(Tame), false, Regressions::NONE, LIMIT).unwrap();
        assert_eq!(bare.stop, Stop::Requested(stop), "{field:?} bare");
        let failed = bare.records.iter().find_map(|r| match r.payload {
            Payload::EntryFailed { code, .. } => Some(code),
            _ => None,
        });
        assert_eq!(failed, Some(code), "{field:?}");
        assert_eq!(compare(bare, hosted, Vendor::Intel).differences, [], "{field:?}");
    }
}

#[test]
fn a_broken_vmcb_is_refused_bare_and_hosted() {
    let image = assemble(&Workload::draw(Vendor::Amd, 5, &mut Tame)).unwrap();
    for (field, value) in [(VmcbField::Asid, 0), (VmcbField::Efer, 0xd00), (VmcbField::Cr0, 0x2000_0011)] {
        let mut image = image.clone();
        let vmcb = image.segments.iter_mut().find(|(address, _)| *address == CONTROL).unwrap();
        let at = field.vmcb_offset().unwrap();
        vmcb.1[at..at + field.size()].copy_from_slice(&u64::to_le_bytes(value)[..field.size()]);
        let bare = run_bare(&image, Box::new(Tame), LIMIT);
        let hosted = run_hosted(&image, Box::new(Tame), false, Regressions::NONE, LIMIT).unwrap();
        assert_eq!(bare.stop, Stop::Requested(0xf1), "{field:?} bare");
        assert_eq!(compare(bare, hosted, Vendor::Amd).differences, [], "{field:?}");
    }
}

/// Save and restore are the identity at every instruction of a hypervisor and its guest, wherever the processor keeps them.
#[test]
fn a_machine_restored_at_any_tick_ends_as_if_it_had_not_been() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for seed in 0..2 {
            let image = assemble(&Workload::draw(vendor, 8, &mut Seeded::new(seed))).unwrap();
            let board = |seed| bare_board(&image, Hardware::Tame, Box::new(Seeded::new(seed)));
            let mut plain = board(seed);
            let end = plain.run(LIMIT);
            let expected = plain.digest();
            let (mut original, mut other) = (board(seed), board(seed + 1));
            for tick in 1..end.tick {
                original.run(tick);
                other.restore(&original.snapshot().unwrap()).unwrap();
                assert_eq!(other.digest(), original.digest(), "{vendor:?} seed {seed} at {tick}");
                assert_eq!(other.run(LIMIT), end, "{vendor:?} seed {seed} from {tick}");
                assert_eq!(other.digest(), expected, "{vendor:?} seed {seed} from {tick}");
            }
        }
    }
}
