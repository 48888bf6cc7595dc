//! Whole dumps in, fields with their lines out.

use rootmode_traces::dump::{DumpedVmcs, EferOrigin, Reason, Vendor, parse};
use rootmode_vmx::Field;

fn field(encoding: u32) -> Field {
    Field::from_encoding(encoding).expect("a field of the manual").0
}

fn value(vmcs: &DumpedVmcs, encoding: u32) -> Option<u64> {
    vmcs.value(field(encoding))
}

/// A dump as kernels since 6.3 print it, put together by hand from the format.
const INTEL_6: &str = "\
kvm_intel: VMCS 00000000f971be22, last attempted VM-entry on CPU 3
kvm_intel: *** Guest State ***
kvm_intel: CR0: actual=0x0000000080010033, shadow=0x0000000080010031, gh_mask=fffffffffffefff7
kvm_intel: CR4: actual=0x0000000000342af0, shadow=0x0000000000340af0, gh_mask=fffffffffffef871
kvm_intel: CR3 = 0x0000008000f76000
kvm_intel: PDPTR0 = 0x000000005e0e5001  PDPTR1 = 0x000000005e0e4001
kvm_intel: PDPTR2 = 0x000000005e0e3001  PDPTR3 = 0x000000005e0e2001
kvm_intel: RSP = 0xfffffe006000be50  RIP = 0xffffff8000042837
kvm_intel: RFLAGS=0x00000002         DR7 = 0x0000000000000400
kvm_intel: Sysenter RSP=0000000000000011 CS:RIP=0010:0000000000000012
kvm_intel: CS:   sel=0x0008, attr=0x0a09b, limit=0xffffffff, base=0x0000000000000000
kvm_intel: TR:   sel=0x0040, attr=0x0008b, limit=0x00000067, base=0xfffffe0000003000
kvm_intel: GDTR:                           limit=0x0000007f, base=0xfffffe0000001000
kvm_intel: EFER= 0x0000000000000d01 (effective)
kvm_intel: PAT = 0x0407050600070106
kvm_intel: DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000004000
kvm_intel: Interruptibility = 00000001  ActivityState = 00000002
kvm_intel: InterruptStatus = 0b0a
kvm_intel: MSR guest autoload:
kvm_intel:    0: msr=0x00000600 value=0x0000000000000007
kvm_intel: *** Host State ***
kvm_intel: RIP = 0xffffffffc0a0b000  RSP = 0xffffc90000a0b000
kvm_intel: CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
kvm_intel: FSBase=0000000000000001 GSBase=0000000000000002 TRBase=0000000000000003
kvm_intel: GDTBase=0000000000000004 IDTBase=0000000000000005
kvm_intel: CR0=0000000080050033 CR3=000000010a0b4000 CR4=00000000001626e0
kvm_intel: Sysenter RSP=0000000000000021 CS:RIP=0020:0000000000000022
kvm_intel: EFER= 0x0000000000000d02
kvm_intel: PAT = 0x0407050600070107
kvm_intel: *** Control State ***
kvm_intel: CPUBased=0xb5a06dfa SecondaryExec=0x021237eb TertiaryExec=0x0000000000000010
kvm_intel: PinBased=0x000000ff EntryControls=0000d1ff ExitControls=002befff
kvm_intel: ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
kvm_intel: VMEntry: intr_info=80000b0e errcode=00000002 ilen=00000000
kvm_intel: VMExit: intr_info=00000000 errcode=00000000 ilen=00000003
kvm_intel:         reason=80000021 qualification=0000000000000004
kvm_intel: IDTVectoring: info=00000000 errcode=00000000
kvm_intel: TSC Offset = 0xffffe0f2d30a5f19
kvm_intel: SVI|RVI = 0b|0a TPR Threshold = 0x00
kvm_intel: APIC-access addr = 0x000000010a0b5000 virt-APIC addr = 0x000000010a0b6000
kvm_intel: PostedIntrVec = 0xf2
kvm_intel: EPT pointer = 0x000000010a0b705e
kvm_intel: PLE Gap=00000080 Window=00001000
kvm_intel: Virtual processor ID = 0x0001
";

/// Fields of [`INTEL_6`]: encoding, value, line.
const INTEL_6_FIELDS: &[(u32, u64, u32)] = &[
    (0x6800, 0x8001_0033, 3),
    (0x6004, 0x8001_0031, 3),
    (0x6000, 0xffff_ffff_fffe_fff7, 3),
    (0x6802, 0x80_00f7_6000, 5),
    (0x2810, 0x5e0e_2001, 7),
    (0x681c, 0xffff_fe00_6000_be50, 8),
    (0x681e, 0xffff_ff80_0004_2837, 8),
    (0x6820, 2, 9),
    (0x681a, 0x400, 9),
    (0x6824, 0x11, 10),
    (0x482a, 0x10, 10),
    (0x6826, 0x12, 10),
    (0x4816, 0xa09b, 11),
    (0x4822, 0x8b, 12),
    (0x4810, 0x7f, 13),
    (0x2804, 0x0407_0506_0007_0106, 15),
    (0x6822, 0x4000, 16),
    (0x4824, 1, 17),
    (0x4826, 2, 17),
    (0x0810, 0x0b0a, 18),
    (0x6c16, 0xffff_ffff_c0a0_b000, 22),
    (0x6c14, 0xffff_c900_00a0_b000, 22),
    (0x0c0c, 0x40, 23),
    (0x6c0a, 3, 24),
    (0x6c0e, 5, 25),
    (0x6c04, 0x1626e0, 26),
    (0x6c10, 0x21, 27),
    (0x4c00, 0x20, 27),
    (0x2c02, 0xd02, 28),
    (0x2c00, 0x0407_0506_0007_0107, 29),
    (0x4002, 0xb5a0_6dfa, 31),
    (0x401e, 0x0212_37eb, 31),
    (0x2034, 0x10, 31),
    (0x4000, 0xff, 32),
    (0x4012, 0xd1ff, 32),
    (0x400c, 0x2b_efff, 32),
    (0x4016, 0x8000_0b0e, 34),
    (0x4018, 2, 34),
    (0x4402, 0x8000_0021, 36),
    (0x6400, 4, 36),
    (0x401c, 0, 39),
    (0x2014, 0x1_0a0b_5000, 40),
    (0x2012, 0x1_0a0b_6000, 40),
    (0x0002, 0xf2, 41),
    (0x4022, 0x1000, 43),
    (0x0000, 1, 44),
];

fn assert_intel_6(text: &str, what: &str) {
    let parsed = parse(text);
    assert_eq!(parsed.unreadable, [], "{what}");
    assert_eq!(parsed.dumps.len(), 1, "{what}");
    let dump = &parsed.dumps[0];
    assert_eq!(dump.vendor(), Vendor::Intel, "{what}");
    // A heading wrapped before its last word loses the number of the host's processor, which no rule asks for.
    let may_lose = what.starts_with("wrapped") && dump.host_cpu.is_none();
    assert!(dump.host_cpu == Some(3) || may_lose, "{what}");
    let vmcs = dump.vmcs().expect("Intel");
    for (encoding, expected, _) in INTEL_6_FIELDS {
        assert_eq!(value(vmcs, *encoding), Some(*expected), "{what}: {encoding:#x}");
    }
    assert_eq!(value(vmcs, 0x2806), None, "{what}: an effective EFER is not the field");
    let (efer, origin) = vmcs.effective_efer.as_ref().expect("EFER is printed");
    assert_eq!((efer.value, *origin), (0xd01, EferOrigin::Effective), "{what}");
    assert_eq!(vmcs.entry_load.len(), 1, "{what}");
    assert_eq!((vmcs.entry_load[0].value.index, vmcs.entry_load[0].value.value), (0x600, 7), "{what}");
}

#[test]
fn every_field_of_a_vmcs_dump_comes_out_with_its_line() {
    assert_intel_6(INTEL_6, "as printed");
    let parsed = parse(INTEL_6);
    let vmcs = parsed.dumps[0].vmcs().unwrap();
    for (encoding, _, line) in INTEL_6_FIELDS {
        assert_eq!(vmcs.line(field(*encoding)), Some(*line), "{encoding:#x}");
    }
    assert_eq!(parsed.dumps[0].lines, (1, 44));
}

#[test]
fn surroundings_of_every_kind_change_nothing() {
    let each = |prefix: &str, suffix: &str| {
        INTEL_6.lines().map(|l| format!("{prefix}{l}{suffix}\n")).collect::<String>()
    };
    for (what, text) in [
        ("dmesg", each("[  123.456789] ", "")),
        ("dmesg -r", each("<3>[  123.456789] ", "\r")),
        ("printk caller", each("[  123.456789][ T4242] ", "")),
        ("syslog", each("Sep  8 22:52:20 some-host kernel: [10639.238026] ", "")),
        ("journal", each("Nov 22 05:59:08 host.example kernel: ", "")),
        ("quoted mail", each("> >> ", "  ")),
        ("web page", each("<pre>", "<br>").replace('=', "&#61;")),
        ("prefix nobody knows", each("2020-09-08 10:00:00 node7 ", "").replace("kvm_intel: ", "")),
        ("old kernel without module name", INTEL_6.replace("kvm_intel: ", "")),
        ("quoted-printable mail", each("", "").replace('=', "=3D").replace("TSC Offset", "TSC=20=\nOffset")),
        ("one line", INTEL_6.replace('\n', "\\n")),
        ("noise between lines", each("", "\n[ 9.9] usb 1-1: new device number 4\neth0: link up")),
        ("comments", format!("# from a bug report\n{INTEL_6}")),
    ] {
        assert_intel_6(&text, what);
    }
}

#[test]
fn lines_wrapped_by_a_mail_program_are_joined() {
    for width in [60, 72, 78, 80] {
        let mut text = String::new();
        for line in INTEL_6.lines() {
            let mut column = 0;
            for word in format!("[  123.456789] {line}").split_inclusive(' ') {
                if column > 0 && column + word.trim_end().len() > width {
                    text.push('\n');
                    column = 0;
                }
                text.push_str(word);
                column += word.len();
            }
            text.push('\n');
        }
        assert!(text.lines().count() > INTEL_6.lines().count());
        assert_intel_6(&text, &format!("wrapped at {width}"));
    }
}

#[test]
fn a_garbled_number_is_named_and_its_neighbours_are_read() {
    let text = INTEL_6.replace("shadow=0x0000000080010031", "shadow=0x00000000800#0031");
    let parsed = parse(&text);
    assert_eq!(parsed.unreadable.len(), 1);
    let unreadable = &parsed.unreadable[0];
    assert_eq!((unreadable.line, unreadable.what.as_str()), (3, "shadow"));
    assert!(matches!(unreadable.reason, Reason::NotANumber { .. }), "{unreadable}");
    let vmcs = parsed.dumps[0].vmcs().unwrap();
    assert_eq!((value(vmcs, 0x6800), value(vmcs, 0x6004)), (Some(0x8001_0033), None));
    assert_eq!(value(vmcs, 0x6000), Some(0xffff_ffff_fffe_fff7));
}

#[test]
fn a_dump_cut_off_inside_a_number_does_not_yield_the_stump() {
    let end = INTEL_6.find("base=0xfffffe0000003000").unwrap() + "base=0xfffffe".len();
    let parsed = parse(&INTEL_6[..end]);
    let vmcs = parsed.dumps[0].vmcs().unwrap();
    assert_eq!((value(vmcs, 0x480e), value(vmcs, 0x6814)), (Some(0x67), None));
    assert_eq!(parsed.unreadable.len(), 1);
    assert_eq!(parsed.unreadable[0].reason, Reason::CutOff { digits: 6, expected: 16 });
}

#[test]
fn two_dumps_in_one_log_are_two_dumps_even_interleaved_by_caller() {
    let other = INTEL_6.replace("0x0000008000f76000", "0x0000008000aaa000").replace("CPU 3", "CPU 5");
    let parsed = parse(&format!("{INTEL_6}{other}"));
    assert_eq!(parsed.dumps.len(), 2);
    assert_eq!((parsed.dumps[0].host_cpu, parsed.dumps[1].host_cpu), (Some(3), Some(5)));
    let interleaved: String = INTEL_6
        .lines()
        .zip(other.lines())
        .map(|(a, b)| format!("[ 1.0][ T10] {a}\n[ 1.0][ T11] {b}\n"))
        .collect();
    let parsed = parse(&interleaved);
    assert_eq!(parsed.unreadable, []);
    let cr3 = |i: usize| value(parsed.dumps[i].vmcs().unwrap(), 0x6802);
    assert_eq!((cr3(0), cr3(1)), (Some(0x80_00f7_6000), Some(0x80_00aa_a000)));
}
