//! A printed dump is read back field by field, for every kernel, with random values and random controls.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rootmode_svm::Vmcb;
use rootmode_traces::dump::{
    Kernel, MsrEntry, VmcbSurroundings, VmcsSurroundings, parse, print_vmcb, print_vmcs,
};
use rootmode_vmx::Field;

/// Fields that no kernel's dump shows.
const NEVER: &[Field] = &[
    Field::LinkPointer,
    Field::IoBitmapA,
    Field::MsrBitmap,
    Field::Cr3TargetCount,
    Field::EntryMsrLoadAddress,
    Field::EntryMsrLoadCount,
    Field::VmFunctionControls,
    Field::PmlAddress,
    Field::GuestSmbase,
    Field::InstructionError,
];

fn field(encoding: u32) -> Field {
    Field::from_encoding(encoding).expect("a field of the manual").0
}

fn width(encoding: u32) -> u32 {
    match encoding >> 13 & 3 {
        0 => 16,
        2 => 32,
        _ => 64,
    }
}

/// Values for all fields; each is its encoding spread over the field unless the random number says otherwise, so
/// that two fields never have the same value by design.
fn vmcs(random: &[u64]) -> BTreeMap<u32, u64> {
    Field::ALL
        .into_iter()
        .map(Field::encoding)
        .zip(random)
        .map(|(e, r)| (e, if width(e) == 64 { *r } else { r & ((1 << width(e)) - 1) }))
        .collect()
}

fn kernels() -> impl Strategy<Value = Kernel> {
    proptest::sample::select(Kernel::ALL.to_vec())
}

proptest! {
    #[test]
    fn every_printed_vmcs_field_is_read_back(
        kernel in kernels(),
        random in proptest::collection::vec(any::<u64>(), 200),
        bools in any::<[bool; 4]>(),
        efer in any::<u64>(),
        list in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..3),
    ) {
        let fields = vmcs(&random);
        let entry_load: Vec<_> = list.iter().map(|(index, value)| MsrEntry { index: *index, value: *value }).collect();
        let surroundings = VmcsSurroundings {
            has_secondary_controls: bools[0],
            has_tertiary_controls: bools[1],
            has_ept: bools[2],
            has_perf_global_ctrl: bools[3],
            guest_efer: efer,
            entry_load: entry_load.clone(),
            exit_load: entry_load.clone(),
            host_cpu: 7,
            ..VmcsSurroundings::default()
        };
        let text = print_vmcs(kernel, &surroundings, &|e| fields[&e]);
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.unreadable, &vec![]);
        prop_assert_eq!(parsed.dumps.len(), 1);
        let read = parsed.dumps[0].vmcs().unwrap();
        for (known, sourced) in &read.fields {
            let encoding = &known.encoding();
            let secondary = *encoding == 0x401e && !bools[0];
            let tertiary = *encoding == 0x2034 && !bools[1];
            let expected = if secondary || tertiary { 0 } else { fields[encoding] };
            prop_assert_eq!(sourced.value, expected, "{:?}", known);
        }
        // What every kernel shows unconditionally.
        for encoding in (0x0800..0x0810).chain(0x4800..0x4828).chain(0x6800..0x6828).step_by(2) {
            prop_assert!(read.fields.contains_key(&field(encoding)), "{:#x}", encoding);
        }
        for never in NEVER {
            prop_assert!(!read.fields.contains_key(never), "{:?}", never);
        }
        if kernel >= Kernel::V5_15 {
            prop_assert_eq!(parsed.dumps[0].host_cpu, Some(7));
            prop_assert_eq!(read.entry_load.iter().map(|m| m.value).collect::<Vec<_>>(), entry_load.clone());
            prop_assert_eq!(read.exit_load.iter().map(|m| m.value).collect::<Vec<_>>(), entry_load);
            // EFER is the field or is told to be not the field.
            prop_assert_eq!(read.fields.contains_key(&field(0x2806)), fields[&0x4012] & 1 << 15 != 0);
            prop_assert_ne!(read.fields.contains_key(&field(0x2806)), read.effective_efer.is_some());
        }
    }

    #[test]
    fn every_printed_vmcb_field_is_read_back(kernel in kernels(), bytes in proptest::collection::vec(any::<u8>(), 4096)) {
        let field = |offset: u16, size: u8| {
            let at = usize::from(offset);
            (0..usize::from(size)).rev().fold(0u64, |v, i| v << 8 | u64::from(bytes[at + i]))
        };
        let text = print_vmcb(kernel, &VmcbSurroundings { address: 1, host_cpu: 9 }, &field);
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.unreadable, &vec![]);
        let read = parsed.dumps[0].vmcb().unwrap();
        let expected = match kernel {
            // 32 of the control area; 10 segments of 4, 2 and 24 of the save area.
            Kernel::V5_4 | Kernel::V5_10 => 98,
            // GHCB and VMSA.
            Kernel::V5_15 => 100,
            // VMPL.
            _ => 101,
        };
        prop_assert_eq!(read.fields.len(), expected);
        for (key, sourced) in &read.fields {
            prop_assert_eq!(sourced.value, field(key.offset, key.size), "{:?}", key);
        }
    }
}

proptest! {
    #[test]
    fn a_dump_becomes_a_vmcb_that_knows_what_was_printed(kernel in kernels(), bytes in proptest::collection::vec(any::<u8>(), 4096)) {
        let original = Vmcb::from_bytes(bytes.try_into().expect("a page"));
        let page = *original.as_bytes();
        let field = |offset: u16, size: u8| {
            let at = usize::from(offset);
            (0..usize::from(size)).rev().fold(0u64, |v, i| v << 8 | u64::from(page[at + i]))
        };
        let text = print_vmcb(kernel, &VmcbSurroundings::default(), &field);
        let read = parse(&text).dumps.remove(0);
        let vmcb = read.vmcb().unwrap().to_vmcb();
        let known: Vec<_> = rootmode_svm::Field::all().filter(|f| vmcb.get(*f).is_some()).collect();
        prop_assert!(known.len() >= 94, "{}", known.len());
        for field in known {
            // KVM prints the low half of these two.
            let mask = match field {
                rootmode_svm::Field::ExitCode | rootmode_svm::Field::InterruptState => 0xffff_ffff,
                _ => u64::MAX,
            };
            prop_assert_eq!(vmcb.get(field).unwrap() & mask, original.get(field).unwrap() & mask, "{:?}", field);
            prop_assert!(read.vmcb().unwrap().line(field).is_some());
        }
        for never in [rootmode_svm::Field::CleanBits, rootmode_svm::Field::Intercept5, rootmode_svm::Field::SCet] {
            prop_assert_eq!(vmcb.get(never), None);
        }
    }
}

#[test]
fn kernels_differ_in_what_they_leave_out() {
    let controls = |e: u32| match e {
        0x401e => 0xffff_ffff & !(1 << 1),
        0x4012 => 1 << 14,
        _ => 0,
    };
    let shown = |kernel| {
        let text = print_vmcs(kernel, &VmcsSurroundings::default(), &controls);
        parse(&text).dumps[0].vmcs().unwrap().fields.clone()
    };
    // PDPTEs: before 5.13 only with EPT in use, PAE and no long mode; since then whenever the processor has EPT.
    assert!(!shown(Kernel::V5_10).contains_key(&field(0x280a)));
    assert!(shown(Kernel::V6_1).contains_key(&field(0x280a)));
    // EFER: before 5.13 on one line with PAT if either is loaded; since then by its own control.
    assert!(shown(Kernel::V5_10).contains_key(&field(0x2806)));
    assert!(!shown(Kernel::V6_12).contains_key(&field(0x2806)));
    // Tertiary controls: since 6.0. #VE: since 6.10.
    assert!(
        !shown(Kernel::V5_15).contains_key(&field(0x2034))
            && shown(Kernel::V6_1).contains_key(&field(0x2034))
    );
    assert!(
        !shown(Kernel::V6_6).contains_key(&field(0x202a))
            && shown(Kernel::V6_12).contains_key(&field(0x202a))
    );
}
