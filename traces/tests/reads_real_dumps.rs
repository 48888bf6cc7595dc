//! Dumps from public mailing lists and issue trackers: as many fields as a human reads in them, no more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rootmode_traces::dump::{Dump, Parsed, Source, Vendor, parse};
use rootmode_vmx::Field;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/dumps/real")
}

fn texts() -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder())
        .expect("the dumps are in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    all.sort();
    all
}

fn expectation(text: &Path) -> BTreeMap<String, String> {
    let path = text.with_extension("expect");
    let content = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    content.lines().filter_map(|l| l.split_once(" = ")).map(|(k, v)| (k.into(), v.into())).collect()
}

fn number_of_fields(dump: &Dump) -> usize {
    dump.vmcs().map_or_else(|| dump.vmcb().expect("one of the two").fields.len(), |v| v.fields.len())
}

fn read(name: &str) -> Parsed {
    let path =
        texts().into_iter().find(|p| p.to_string_lossy().contains(name)).expect("a dump of this number");
    parse(&fs::read_to_string(path).expect("a readable file"))
}

#[test]
fn every_real_dump_reads_as_its_expectation_says() {
    let texts = texts();
    assert!(texts.len() >= 20, "{}", texts.len());
    for path in texts {
        let name = path.display();
        let expected = expectation(&path);
        let parsed = parse(&fs::read_to_string(&path).unwrap());
        assert_eq!(parsed.dumps.len(), 1, "{name}");
        let dump = &parsed.dumps[0];
        let vendor = if dump.vendor() == Vendor::Intel { "intel" } else { "amd" };
        assert_eq!(vendor, expected["vendor"], "{name}");
        assert_eq!(number_of_fields(dump).to_string(), expected["fields"], "{name}");
        let failure = dump.failure.as_ref().map(|f| format!("{:#x}", f.value));
        assert_eq!(failure.as_ref(), expected.get("failure"), "{name}");
        let mut lines: Vec<_> = parsed.unreadable.iter().map(|u| u.line.to_string()).collect();
        lines.dedup();
        assert_eq!(lines.join(", "), expected.get("unreadable").cloned().unwrap_or_default(), "{name}");
        for cause in expected["cause"].split(", ").filter(|c| dump.vmcs().is_some() && *c != "none") {
            let known = cause == "VM_ENTRY_MSR_LOAD" || Field::from_linux(cause).is_some();
            assert!(known, "{name}: {cause} is no field");
        }
    }
}

#[test]
fn values_of_real_dumps_are_the_ones_printed() {
    // Value by value against the text, in places where reading is hard: wrapped, quoted, encoded, tabular.
    for (name, field, value, line) in [
        ("01-", Field::Cr4Mask, 0xffff_ffff_ffff_f871, 5),
        ("02-", Field::GuestDsRights, 0xc0f2, 13),
        ("02-", Field::HostTrBase, 0xffff_fe00_0010_2000, 38),
        ("03-", Field::GuestGdtrBase, 0x001f_0000_0000_0200, 19),
        ("04-", Field::GuestInterruptibility, 9, 25),
        ("05-", Field::GuestSsp, 0x7fc1_727f_dfd0, 38),
        ("06-", Field::GuestRip, 0xffff_d18a_040b_b75e, 11),
        ("06-", Field::GuestGsBase, 0xffff_f804_4ff8_0000, 23),
        ("06-", Field::EptpIndex, 0, 71),
        ("07-", Field::GuestPendingDebug, 0, 31),
        ("07-", Field::ExitQualification, 2, 50),
        ("08-", Field::GuestCsBase, 0xffff_0000, 11),
        ("19-", Field::GuestCr3, 0x8000_0000_1a02_f080, 7),
        ("20-", Field::GuestPendingDebug, 0, 3),
    ] {
        let parsed = read(name);
        let vmcs = parsed.dumps[0].vmcs().unwrap();
        assert_eq!((vmcs.value(field), vmcs.line(field)), (Some(value), Some(line)), "{name} {field:?}");
    }
    let parsed = read("07-");
    let list = &parsed.dumps[0].vmcs().unwrap().entry_load;
    assert_eq!((list[0].value.index, list[0].value.value, list[0].line), (0x1dd, 0x1fff_f806_76f5_2be5, 3));
    let parsed = read("14-");
    let vmcb = parsed.dumps[0].vmcb().unwrap().to_vmcb();
    assert_eq!(vmcb.get(rootmode_svm::Field::Efer), Some(0x1000));
    assert_eq!(vmcb.get(rootmode_svm::Field::GPat), Some(0x0007_0406_0007_0406));
    assert_eq!(vmcb.get(rootmode_svm::Field::ExitCode), Some(0x400));
    assert_eq!(
        read("09-").dumps[0].vmcb().unwrap().to_vmcb().get(rootmode_svm::Field::ExitCode),
        Some(u64::MAX)
    );
}

#[test]
fn registers_from_qemu_never_override_the_control_structure() {
    let parsed = read("04-");
    let vmcs = parsed.dumps[0].vmcs().unwrap();
    assert!(vmcs.fields.values().all(|v| v.source == Source::Kernel));
    let parsed = read("26-");
    let vmcb = parsed.dumps[0].vmcb().unwrap();
    assert_eq!(vmcb.value(0x558, 8), Some(0x8001_0010), "KVM's CR0, not the guest's 0x60000010");
    assert_eq!(vmcb.value(0x410, 2), Some(0x9a00), "only QEMU tells CS");
}

/// Every prefix of every real dump, cut at any byte, reads without panic and never yields another value for a field
/// than the whole dump does.
#[test]
fn a_dump_cut_anywhere_yields_no_wrong_value() {
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        let whole = parse(&text);
        let whole = &whole.dumps[0];
        for cut in (0..text.len()).filter(|c| text.is_char_boundary(*c)).step_by(17) {
            for dump in parse(&text[..cut]).dumps {
                let (Some(part), Some(all)) = (dump.vmcs(), whole.vmcs()) else { continue };
                for (field, value) in &part.fields {
                    let expected = all.fields.get(field).map(|v| v.value);
                    let kernel = value.source == Source::Kernel;
                    // Cut right behind its number, nothing says that "(effective)" should follow.
                    let untold =
                        *field == Field::GuestEfer && expected.is_none() && text[..cut].ends_with("d01");
                    assert!(
                        !kernel || untold || expected == Some(value.value),
                        "{} at {cut}: {field:?}",
                        path.display()
                    );
                }
            }
        }
    }
}
