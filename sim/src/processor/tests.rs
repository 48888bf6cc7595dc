//! `--cpu` by example, what every feature of the table is called, and what real parts have beyond their models.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rootmode_arch::cpuid::TABLE;

use super::*;

fn refused(text: &str) -> String {
    Processor::parse(text).unwrap_err().to_string()
}

#[test]
fn changes_are_read_from_left_to_right_in_both_spellings() {
    let has = |text: &str, feature| Processor::parse(text).unwrap().model().has(feature);
    assert!(has("max-intel", Feature::Pcid) && !has("max-intel,-pcid", Feature::Pcid));
    assert!(!has("max-intel,pcid=off", Feature::Pcid) && has("max-intel,-pcid,pcid=on", Feature::Pcid));
    assert!(
        !has("max-amd,-npt", Feature::NestedPaging) && !has("max-amd,-nested_paging", Feature::NestedPaging)
    );
    assert!(!has("max-intel,-SSE4.1", Feature::Sse41) && !has("max-intel,-sse4_1", Feature::Sse42));
    let narrow = Processor::parse("max-intel,phys-bits=36,-x2apic").unwrap();
    assert_eq!(narrow.model().physical_width(), 36);
    assert_eq!(narrow.model().cpuid(0x8000_0008, 0, rootmode_arch::Cr4(0), 0)[0] & 0xff, 36);
    assert_eq!((narrow.name(), narrow.text()), ("max-intel", "max-intel,phys-bits=36,-x2apic"));
}

#[test]
fn a_feature_takes_along_what_needs_it() {
    let all = [Feature::XsaveOpt, Feature::XsaveC, Feature::Xgetbv1, Feature::Xsaves, Feature::Xsave];
    let without = Processor::parse("max-intel,-xsave").unwrap();
    assert!(all.iter().all(|feature| !without.model().has(*feature)));
    assert!(without.model().leaves().keys().all(|(leaf, _)| *leaf != 0xd), "no XSAVE, no leaf D");
    let no_svm = Processor::parse("max-amd,-svm").unwrap();
    assert!(no_svm.model().features().iter().all(|feature| feature.row().leaf != 0x8000_000a));
    assert_eq!(
        refused("max-intel,-xsave,+xsaves"),
        "`+xsaves`: max-intel cannot have it, because it needs xsavec"
    );
}

#[test]
fn memory_encryption_is_there_for_who_asks_for_it() {
    let all = [Feature::Sme, Feature::Sev, Feature::SevEs];
    for name in NAMES {
        let processor = Processor::named(name).unwrap();
        assert!(all.iter().all(|feature| !processor.model().has(*feature)), "{name}");
        assert_eq!(processor.model().c_bit(), 0, "{name}");
    }
    let leaf =
        |text: &str| Processor::parse(text).unwrap().model().cpuid(0x8000_001f, 0, rootmode_arch::Cr4(0), 0);
    // EAX: SME, SEV, SEV-ES, hosts in 64-bit mode only. EBX: the C-bit. ECX and EDX: ASIDs.
    assert_eq!(leaf("max-amd,+sev-es"), [1 << 11 | 0b1011, 51, 1006, 100]);
    assert_eq!(leaf("amd-genoa,+sev"), [1 << 11 | 0b11, 51, 1006, 100]);
    assert_eq!(leaf("max-amd,+sme"), [1, 51, 0, 0]);
    assert_eq!(leaf("max-amd,+sev-es,-sme"), [0; 4], "what needs it goes along");
    assert!(refused("max-amd,-npt,+sev-es").contains("it needs npt"));
    assert!(refused("max-intel,+sev-es").contains("cannot have it"));
    assert!(refused("max-amd,+sev-snp").contains("cannot have it"));
}

#[test]
fn controls_of_vmx_are_flags_too() {
    use rootmode_arch::msr::{IA32_VMX_BASIC, IA32_VMX_EPT_VPID_CAP, IA32_VMX_PROCBASED_CTLS2};
    let read = |text: &str, index: u32| {
        let sheet = Sheet::of(&Processor::parse(text).unwrap());
        let msr = sheet.msrs.iter().find(|msr| msr.index == format!("{index:#010x}")).unwrap();
        u64::from_str_radix(msr.value.as_deref().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    // SDM Vol. 3D "Secondary Processor-Based VM-Execution Controls": mode-based execute control is bit 22 of the word.
    let mbec = 1 << (32 + 22);
    let full = read("max-intel", IA32_VMX_PROCBASED_CTLS2);
    assert_eq!(read("max-intel,-vmx-mbec", IA32_VMX_PROCBASED_CTLS2), full & !mbec);
    assert_eq!(read("max-intel,vmx-mbec=off,+vmx-mbec", IA32_VMX_PROCBASED_CTLS2), full);
    assert_ne!(full & mbec, 0);
    let ept = read("max-intel", IA32_VMX_EPT_VPID_CAP);
    assert_eq!(read("max-intel,-vmx-ept-page-1g", IA32_VMX_EPT_VPID_CAP), ept & !(1 << 17));
    let basic = read("max-intel", IA32_VMX_BASIC);
    assert_ne!(basic >> 56 & 1, 0, "a hardware exception may be injected with or without an error code");
    assert_eq!(read("max-intel,-vmx-any-errcode", IA32_VMX_BASIC), basic & !(1 << 56));
    let vmx = |text: &str| Sheet::of(&Processor::parse(text).unwrap()).vmx;
    // A control goes with its CPUID feature, and those of the second word with the bit that activates them.
    assert!(vmx("max-intel").contains(&"vmx-rdseed-exit".to_owned()));
    assert!(!vmx("max-intel,-rdseed").contains(&"vmx-rdseed-exit".to_owned()));
    assert!(!vmx("max-intel,-vmx-secondary-ctls").contains(&"vmx-ept".to_owned()));
    assert_eq!(vmx("max-intel,-vmx").len() + vmx("max-amd").len(), 0);
    assert!(refused("max-intel,+vmx-sub-page-write").contains("max-intel cannot have it"));
    assert!(refused("max-intel,-rdseed,+vmx-rdseed-exit").contains("cannot have it"));
    assert!(refused("max-intel,+vmx-smbase-readable").contains("cannot have it"), "not implemented");
    assert!(refused("max-amd,+vmx-ept").contains("cannot have it"));
    assert!(refused("max-intel,-vmx-mbce").contains("vmx-mbec"), "{}", refused("max-intel,-vmx-mbce"));
    let mut seen = BTreeSet::new();
    for (flag, capability) in capabilities::all() {
        assert_eq!(capabilities::from_flag(&flag), Some(capability), "{flag}");
        assert!(seen.insert(flag.clone()) && Feature::from_flag(&flag).is_none(), "{flag}");
    }
}

#[test]
fn errors_name_the_flag_and_near_ones() {
    assert!(
        refused("max-intel,-picd").contains("called `picd`; near ones: pcid"),
        "{}",
        refused("max-intel,-picd")
    );
    assert!(refused("max-amd,+vgiff=").contains("near ones: vgif"));
    assert!(refused("max-intel,xyzzyplugh=on").contains("rootmode cpu show"));
    assert!(refused("max").starts_with("no processor model is called `max`; there are max-intel, max-amd"));
    assert!(refused("max-intel,pcid").contains("`pcid` is no change of a processor"));
    assert!(refused("max-intel,pcid=maybe").contains("`pcid=maybe`: expected on or off"));
    for bits in ["31", "53", "x", "", "-40", "300"] {
        let text = format!("max-intel,phys-bits={bits}");
        assert!(refused(&text).contains("expected a number from 32 to 52"), "{text}");
    }
    assert_eq!(
        refused("max-intel,+svm"),
        "`+svm`: max-intel cannot have it, because no model of its vendor has CPUID.80000001H.0:Ecx[2] here"
    );
}

#[test]
fn several_processors_are_told_from_changes() {
    let all = Processor::parse_all("max-intel,-pcid,phys-bits=40,max-amd,amd-genoa,+x2apic").unwrap();
    let texts: Vec<&str> = all.iter().map(Processor::text).collect();
    assert_eq!(texts, ["max-intel,-pcid,phys-bits=40", "max-amd", "amd-genoa,+x2apic"]);
}

#[test]
fn every_feature_has_a_flag_of_its_own() {
    let mut seen = BTreeSet::new();
    for row in TABLE {
        let flag = flag(row.feature);
        assert_eq!(Feature::from_flag(&flag), Some(row.feature), "{flag}");
        assert_eq!(Feature::from_flag(row.name), Some(row.feature), "{}", row.name);
        assert!(seen.insert(flag));
        assert!(!row.feature.needs().contains(&row.feature));
    }
}

#[test]
fn models_have_nothing_that_their_parts_lack() {
    for name in NAMES {
        let processor = Processor::named(name).unwrap();
        let model = processor.model();
        assert!(!about(name).is_empty(), "{name}");
        for feature in model.features().iter() {
            assert!(parts::most(model.vendor()).has(feature), "{name} {feature:?}");
            assert!(
                feature.needs().iter().all(|needed| model.has(*needed)),
                "{name}: {feature:?} lacks what it needs"
            );
        }
    }
    let genoa = Processor::named("amd-genoa").unwrap();
    assert_eq!((genoa.model().signature(), genoa.model().physical_width()), (0x00a1_0f11, 52));
    let spr = Processor::named("intel-spr").unwrap();
    assert_eq!((spr.model().signature(), spr.model().physical_width()), (0x0008_06f8, 46));
    assert!(!spr.model().has(Feature::Svm) && !genoa.model().has(Feature::Vmx));
}

#[test]
fn a_sheet_tells_what_the_processor_answers() {
    for name in NAMES {
        let processor = Processor::named(name).unwrap();
        let sheet = Sheet::of(&processor);
        let msr = |index: u32| sheet.msrs.iter().find(|msr| msr.index == format!("{index:#010x}"));
        // Power-up: WB, WT, UC-, UC, twice (SDM Vol. 3A "PAT").
        let pat = msr(0x277).unwrap();
        assert_eq!(
            (pat.name, pat.value.as_deref()),
            (Some("IA32_PAT"), Some("0x0007040600070406")),
            "{name}"
        );
        assert!(pat.writable);
        let base = msr(0x1b).unwrap().value.as_deref();
        assert_eq!(base, Some("0x00000000fee00900"), "{name}: the bootstrap processor in xAPIC mode");
        let intel = processor.vendor() == Vendor::Intel;
        assert_eq!(msr(0x480).is_some(), intel, "{name}: IA32_VMX_BASIC");
        assert!(msr(0x480).is_none_or(|basic| !basic.writable));
        assert_eq!(msr(0xc001_0114).is_some(), !intel, "{name}: VM_CR");
        // EOI takes 0 and cannot be read.
        let eoi = msr(0x80b).unwrap();
        assert_eq!((eoi.value.as_deref(), eoi.writable), (None, true), "{name}");
        assert_eq!(sheet.cpuid.len(), processor.model().leaves().len());
        assert_eq!(sheet.cpuid[0].ebx, if intel { "0x756e6547" } else { "0x68747541" });
    }
    let without = Sheet::of(&Processor::parse("max-intel,-x2apic").unwrap());
    assert!(
        without.msrs.iter().all(|msr| !msr.index.starts_with("0x000008")),
        "no x2APIC, no registers of it"
    );
    for (without, msr) in [("max-intel,-vmx", "0x00000480"), ("max-amd,-svm", "0xc0010114")] {
        let sheet = Sheet::of(&Processor::parse(without).unwrap());
        assert!(sheet.msrs.iter().all(|own| own.index != msr), "{without} has none of the extension's MSRs");
    }
    let genoa = Sheet::of(&Processor::named("amd-genoa").unwrap());
    assert_eq!((genoa.family, genoa.model, genoa.stepping, genoa.physical_bits), (0x19, 0x11, 1, 52));
}

#[test]
fn what_models_lack_only_shrinks() {
    for name in ["intel-skylake", "intel-spr", "amd-genoa"] {
        let path = format!("{}/../tests/golden/lacks-{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read_to_string(&path).unwrap();
        let golden: BTreeSet<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
        let lacks = Processor::named(name).unwrap().lacks();
        let lacks: BTreeSet<&str> = lacks.iter().map(String::as_str).collect();
        let grown: Vec<_> = lacks.difference(&golden).collect();
        assert!(grown.is_empty(), "{name} lost {grown:?}: a list may only shrink");
        let shrunk: Vec<_> = golden.difference(&lacks).collect();
        assert!(shrunk.is_empty(), "{name} has {shrunk:?} now: take them out of {path}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "(max-intel|max-amd|intel-spr)?(,[+-]?[a-z0-9.=-]{0,12}){0,4}") {
        let _ = Processor::parse(&text);
        let _ = Processor::parse_all(&text);
    }

    #[test]
    fn any_sequence_of_changes_leaves_a_processor_whose_features_have_what_they_need(
        amd: bool, changes in proptest::collection::vec((0..TABLE.len(), any::<bool>()), 0..12),
    ) {
        let mut processor = Processor::named(if amd { "max-amd" } else { "max-intel" }).unwrap();
        for (row, on) in changes {
            let feature = TABLE[row].feature;
            let item = format!("{}{}", if on { '+' } else { '-' }, flag(feature));
            if let Ok(changed) = processor.changed(&item) {
                prop_assert_eq!(changed.model().has(feature), on);
                processor = changed;
            } else {
                prop_assert!(on, "{} cannot fail", item);
            }
            let model = processor.model();
            prop_assert!(model.features().iter().all(|f| f.needs().iter().all(|n| model.has(*n))));
        }
        prop_assert_eq!(&Processor::parse(processor.text()).unwrap(), &processor);
    }
}
