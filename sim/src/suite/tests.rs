//! The runner against lists written by hand: grammar, selection, verdicts, reports; mutants that the properties must see.

use std::collections::BTreeSet;
use std::path::Path;

use iced_x86::code_asm::*;
use proptest::prelude::*;

use super::report::{junit, tap, text};
use super::*;
use crate::processor::Processor;
use regex::Regex;

/// A Multiboot kernel that prints its arguments: `|` ends a line, `~` loops for ever, `=` and a character exit with the
/// character's distance from '0', `$` goes on in the initial RAM disk; at the end of its arguments it halts.
fn kernel() -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    let (mut name, mut next, mut exit, mut halt, mut forever, mut print, mut module) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.mov(esi, dword_ptr(ebx + 16)).unwrap();
    a.mov(edx, 0x3f8).unwrap();
    a.set_label(&mut name).unwrap();
    a.lodsb().unwrap();
    a.test(al, al).unwrap();
    a.jz(halt).unwrap();
    a.cmp(al, i32::from(b' ')).unwrap();
    a.jne(name).unwrap();
    a.set_label(&mut next).unwrap();
    a.lodsb().unwrap();
    a.test(al, al).unwrap();
    a.jz(halt).unwrap();
    a.cmp(al, i32::from(b'~')).unwrap();
    a.je(forever).unwrap();
    a.cmp(al, i32::from(b'=')).unwrap();
    a.je(exit).unwrap();
    a.cmp(al, i32::from(b'$')).unwrap();
    a.je(module).unwrap();
    a.cmp(al, i32::from(b'|')).unwrap();
    a.jne(print).unwrap();
    a.mov(al, i32::from(b'\n')).unwrap();
    a.set_label(&mut print).unwrap();
    a.out(dx, al).unwrap();
    a.jmp(next).unwrap();
    a.set_label(&mut forever).unwrap();
    a.jmp(forever).unwrap();
    a.set_label(&mut module).unwrap();
    a.mov(esi, dword_ptr(ebx + 24)).unwrap();
    a.mov(esi, dword_ptr(esi)).unwrap();
    a.jmp(next).unwrap();
    a.set_label(&mut exit).unwrap();
    a.lodsb().unwrap();
    a.movzx(eax, al).unwrap();
    a.sub(eax, i32::from(b'0')).unwrap();
    a.out(0xf4, eax).unwrap();
    a.set_label(&mut halt).unwrap();
    a.hlt().unwrap();
    let code = a.assemble(0x10_0020).unwrap();
    let flags = 1_u32 << 16;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    [header.map(u32::to_le_bytes).concat(), code].concat()
}

fn run_list(list: &str, request: &Request, jobs: usize) -> Vec<Outcome> {
    let folder = std::env::temp_dir()
        .join(format!("rootmode-suite-{}-{:?}", std::process::id(), { std::thread::current().id() }));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("echo.flat"), kernel()).unwrap();
    // Its exit status says whether CPUID 0x40000000 answers "KVMK" in EBX.
    let kvm = [
        0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, // mov eax, 0x40000000; cpuid
        0x66, 0x81, 0xfb, b'K', b'V', b'M', b'K', // cmp ebx, "KVMK"
        0x0f, 0x95, 0xc0, 0xba, 0xf4, 0, 0xee, // setne al; mov dx, 0xf4; out dx, al
    ];
    std::fs::write(folder.join("kvm.flat"), kvm).unwrap();
    let cases = plan(&Definition::parse_all(list), &folder, request);
    let mut outcomes = Vec::new();
    execute(&cases, jobs, 3_000_000, |_| (), |outcome| outcomes.push(outcome));
    std::fs::remove_dir_all(&folder).unwrap();
    outcomes
}

fn one(arguments: &str) -> Outcome {
    let list = format!("[t]\nfile = echo.flat\ntest_args = '{arguments}'\n");
    run_list(&list, &Request::default(), 1).remove(0)
}

fn names(list: &str, request: &Request) -> Vec<String> {
    let cases = plan(&Definition::parse_all(list), Path::new("/nowhere"), request);
    cases.iter().map(|case| format!("{} {}", case.name, case.skipped.clone().unwrap_or_default())).collect()
}

#[test]
fn exit_statuses_mean_what_they_mean_upstream() {
    let verdict = |arguments: &str| {
        let outcome = one(arguments);
        (outcome.verdict, outcome.reason.unwrap_or_default())
    };
    assert_eq!(verdict("PASS: a|SUMMARY: 1 tests|=0"), (Verdict::Pass, String::new()));
    assert_eq!(verdict("FAIL: a|SUMMARY: 1 tests, 1 unexpected failures|=1"), (Verdict::Fail, String::new()));
    // 38 is all skipped, 63 is abort().
    assert_eq!(verdict("SKIP: no such feature|=V"), (Verdict::Skip, "no such feature".into()));
    assert_eq!(verdict("PASS: a|=o"), (Verdict::Fail, "aborted".into()));
    assert_eq!(verdict("PASS: a|=2"), (Verdict::Fail, "exit status 5".into()));
    assert_eq!(verdict("PASS: a|~"), (Verdict::Fail, "still running at tick 3000000".into()));
    let stuck = outcome::judge(outcome::End::Stuck("TripleFault".into()), &[]);
    assert_eq!(stuck, (Verdict::Fail, Some("the machine stopped: TripleFault".into())));
    assert_eq!(verdict("FAIL: a|=0").0, Verdict::Fail, "the console is believed before the status");
}

#[test]
fn the_environment_is_the_initial_ram_disk_a_variable_a_line() {
    let list = "[t]\nfile = echo.flat\ntest_args = '$'\n";
    let environment = vec!["PASS: first".into(), "SUMMARY: 1 tests=0".into()];
    let outcome = run_list(list, &Request { environment, ..Request::default() }, 1).remove(0);
    assert_eq!((outcome.verdict, outcome.console.as_str()), (Verdict::Pass, "PASS: first\nSUMMARY: 1 tests"));
}

#[test]
fn a_run_of_skips_is_no_pass() {
    // M-1.6: a guest that answers success although it skipped everything.
    let outcome = one("SKIP: one|SKIP: two|SUMMARY: 2 tests, 2 skipped|=0");
    assert_eq!((outcome.verdict, outcome.reason.as_deref()), (Verdict::Skip, Some("one")));
    assert_eq!(text(&outcome), "SKIP t (one)");
    assert_eq!(one("SKIP: one|PASS: two|=0").verdict, Verdict::Pass);
}

#[test]
fn a_missing_image_or_device_is_a_skip_with_its_reason() {
    let list = "[a]\nfile = none.flat\n[b]\nfile = echo.flat\nqemu_params = -device edu\n\
                [c]\nfile = echo.flat\nsmp = 65\n[d]\nfile = echo.flat\ntest_args = \"`rm x`\"\n";
    let outcomes = run_list(list, &Request::default(), 1);
    assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::Skip));
    let reason = |n: usize| outcomes[n].reason.clone().unwrap();
    assert!(
        reason(0).starts_with("Test file '") && reason(0).ends_with("none.flat' not found"),
        "{}",
        reason(0)
    );
    assert_eq!(reason(1), "the machine has no device edu");
    assert_eq!(reason(2), "65 processors: the machine has from 1 to 64");
    assert_eq!(reason(3), "`rm x` would have to be run by a shell");
}

/// Scenario S-1 of the runner's properties: a leading comment, and a condition on the last section.
const S1: &str = "# comment\nfile = stray.flat\n\n[first]\nfile = echo.flat\n\n[last]\nfile = echo.flat\n\
                  groups = migration\ndisabled_if = true\n";

/// What upstream's hook does for protected virtual machines: a second image, a name and a group of its own.
fn protected() -> Generator {
    Box::new(|case| {
        if case.definition.is_in("migration") {
            return vec![case.clone()];
        }
        let mut variant = case.clone();
        // Nobody measured a command line that only the machine's monitor knows.
        if variant.definition.test_args.is_some() {
            variant.skipped = Some("the image holds no command line".into());
        }
        variant.name.push_str("_PV");
        variant.definition.groups.push("pv".into());
        variant.definition.file = variant.definition.file.map(|file| file.replace(".flat", ".pv.bin"));
        vec![case.clone(), variant]
    })
}

#[test]
fn every_section_is_dispatched_once_and_the_last_one_keeps_its_keys() {
    let request = Request { generators: vec![protected()], ..Request::default() };
    let missing = |name: &str, file: &str| format!("{name} Test file '/nowhere/{file}' not found");
    assert_eq!(
        names(S1, &request),
        [
            missing("first", "echo.flat"),
            // M-1.5: the variant without an image is there, as a skip.
            missing("first_PV", "echo.pv.bin"),
            "last disabled because: true".into(),
        ]
    );
    // M-1.1: no section, no dispatch.
    assert_eq!(
        names("# only\nfile = a.flat\n[]\nfile = b.flat\n", &Request::default()),
        Vec::<String>::new()
    );
}

#[test]
fn a_variant_without_its_arguments_is_no_other_test() {
    // M-1.4: it would pass with no arguments at all.
    let list = "[t]\nfile = echo.flat\ntest_args = 'PASS: a|=0'\n";
    let outcomes = run_list(list, &Request { generators: vec![protected()], ..Request::default() }, 1);
    let got: Vec<_> = outcomes.iter().map(|o| (o.name.as_str(), o.verdict, o.reason.as_deref())).collect();
    assert_eq!(
        got,
        [("t", Verdict::Pass, None), ("t_PV", Verdict::Skip, Some("the image holds no command line"))]
    );
    assert_eq!(outcomes[1].ticks, 0, "it was not run");
}

#[test]
fn the_questions_come_in_upstreams_order() {
    // Each list adds what an earlier question asks, and gets the earlier reason.
    let request = Request { accel: Some("tcg".into()), ..Request::default() };
    let mut list = String::from("[t]\nfile = none\n");
    for (line, reason) in [
        ("", "Test file '/nowhere/none' not found"),
        ("check = /proc/x=1", "/proc/x not equal to 1"),
        ("disabled_if = [[ \"$ARCH\" == x86_64 ]]", "disabled because: [[ \"$ARCH\" == x86_64 ]]"),
        ("accel = kvm", "kvm only, but ACCEL=tcg"),
        ("machine = q35", "q35 only"),
        ("arch = i386", "i386 only"),
        ("groups = a nodefault b", "test marked as manual run only"),
        ("groups = nodefault pv-host", "no gen-se-header available for pv-host test"),
    ] {
        list.push_str(line);
        list.push('\n');
        assert_eq!(names(&list, &request), [format!("t {reason}")]);
    }
    // Filters leave nothing behind, not even a skip; a group is a whole word, and runs manual tests.
    let by = |only: &str, group: Option<&str>| {
        let request =
            Request { filter: Regex::new(only).ok(), group: group.map(str::to_owned), ..Request::default() };
        names("[ab]\nfile = x\ngroups = nodefault vmx\n[b]\nfile = x\n", &request)
    };
    assert_eq!(by("^b$", None), ["b Test file '/nowhere/x' not found"]);
    assert_eq!(by("b$", Some("vm")), Vec::<String>::new());
    assert_eq!(by("a.", Some("vmx")), ["ab Test file '/nowhere/x' not found"]);
}

#[test]
fn values_are_read_as_upstream_reads_them() {
    let list = Definition::parse_all(
        "  [ a ]\t\nfile=x.flat\nsmp = 2\nfile  =  y.flat \nunknown = 1\nextra_params = \"\"\"-m 1 \\\n\
         -cpu max \\\\\n-append 'x y'\"\"\"\ntimeout = 5m\n[b]\ngroups =\ntest_args =\n",
    );
    assert_eq!(list[0].name, " a ");
    assert_eq!(list[0].file.as_deref(), Some("y.flat"));
    assert_eq!(list[0].params, "-m 1 -cpu max \\\\\n-append 'x y'");
    assert_eq!(list[0].timeout.as_deref(), Some("5m"));
    assert_eq!((list[1].line, list[1].test_args.as_deref()), (10, None));
    let words = |text| words::split(text, |c| Some(format!("<{c}>")));
    assert_eq!(words(" a 'b  c'\"`d e`\"\\ f ''").unwrap(), ["a", "b  c<d e> f", ""]);
    assert!(words("'a").is_err());
}

#[test]
fn options_of_qemu_become_machines() {
    let on = |text: &str, name: &str, fixed| {
        qemu::setup(&words::split(text, |_| None).unwrap(), &Processor::named(name).unwrap(), fixed)
    };
    let setup = |text: &str, name: &str| on(text, name, false);
    let of = setup(
        "-cpu max,+x2apic,-pcid,+sgx,hv_passthrough,host-phys-bits -m 2g -smp 4,cores=2 -append 'a b'",
        "max-amd",
    );
    let of = of.unwrap();
    assert_eq!((of.cpu.text(), of.memory, of.processors), ("max-amd,+x2apic,-pcid", 2 << 30, Some(4)));
    assert_eq!(of.append.as_deref(), Some("a b"));
    assert!(of.notes[0].starts_with("-cpu `+sgx`: max-amd cannot have it"), "{:?}", of.notes);
    assert_eq!(of.notes[1], "-cpu flag hv_passthrough ignored");
    let narrow = setup("-cpu IvyBridge,phys-bits=36,host-phys-bits=off,+vmx", "max-intel").unwrap();
    assert_eq!((narrow.cpu.model().physical_width(), narrow.memory), (36, 128 << 20));
    assert_eq!(narrow.notes, ["-cpu IvyBridge: ran as max-intel"]);
    // The list's vendor is another case's, unless the processor is fixed.
    let amd = "-cpu Opteron_G1,vendor=AuthenticAMD -m 2560";
    assert_eq!(setup(amd, "max-intel").unwrap_err(), "the list asks for a processor of Amd");
    assert_eq!(setup(amd, "max-amd").unwrap().memory, 2560 << 20);
    let fixed = on(amd, "max-intel", true).unwrap();
    assert_eq!(fixed.cpu.name(), "max-intel");
    assert!(fixed.notes[1].ends_with("the list asks for Amd, --cpu for max-intel"), "{:?}", fixed.notes);
    assert_eq!(setup("-M q35,x=y", "max-intel").unwrap_err(), "the machine is no q35");
    assert_eq!(setup("-cpu", "max-intel").unwrap_err(), "-cpu without its value");
    assert!(setup("-m lots", "max-intel").is_err());
}

#[test]
fn checks_are_answered_from_the_processor() {
    let skipped = |cpu: &str, check: &str| {
        let list = format!("[t]\nfile = none\ncheck = {check}\n");
        let cpu = Processor::parse(cpu).unwrap();
        let request = Request { generators: vec![processors(vec![cpu])], ..Request::default() };
        names(&list, &request).remove(0)
    };
    let pmu = "/sys/module/kvm/parameters/enable_pmu=Y";
    let no_pmu = format!("t {}", pmu.replace("=", " not equal to "));
    assert!(skipped("max-amd", pmu).ends_with("not found"));
    for cpu in ["max-intel", "intel-skylake"] {
        let version = Processor::parse(cpu).unwrap().model().cpuid(0xa, 0, rootmode_arch::Cr4(0), 0)[0] as u8;
        assert_eq!(skipped(cpu, pmu) == no_pmu, version == 0, "{cpu}");
    }
    assert_eq!(skipped("max-amd", "/etc/x=y"), "t /etc/x not equal to y");
}

#[test]
fn reports_count_every_point_once_in_any_number_of_threads() {
    let list = "[a]\nfile = echo.flat\ntest_args = 'PASS: x <1>|SKIP: y|FAIL: #z|XFAIL: w|=1'\n\
                [b]\nfile = none\n[c]\nfile = echo.flat\ntest_args = 'PASS: p|~'\n[d]\nfile = echo.flat\n\
                test_args = '=0'\n";
    let outcomes = run_list(list, &Request::default(), 4);
    let lines: Vec<String> = tap(&outcomes).lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "TAP version 13");
    assert_eq!(lines[1], "ok 1 - a@max-intel: x <1>");
    assert_eq!(lines[2], "ok 2 - a@max-intel: y # skip");
    assert_eq!(lines[3], "not ok 3 - a@max-intel: \\#z");
    assert!(lines[4].starts_with("ok 4 - b@max-intel: Test file") && lines[4].ends_with(" # skip"));
    assert_eq!(lines[5], "ok 5 - c@max-intel: p");
    assert_eq!(lines[6], "not ok 6 - c@max-intel: still running at tick 3000000");
    assert_eq!(lines[7], "ok 7 - d@max-intel: ");
    assert_eq!(lines[8..], ["1..7"]);
    let xml = junit(&outcomes);
    assert_eq!(xml.matches("<testcase").count(), 7);
    assert_eq!((xml.matches("<failure").count(), xml.matches("<skipped").count()), (2, 2));
    assert!(xml.contains("name=\"x &lt;1&gt;\""), "{xml}");
    assert_eq!(tap(&run_list(list, &Request::default(), 1)), lines.join("\n") + "\n");
}

#[test]
fn a_golden_list_notices_what_is_lost_and_what_is_new() {
    let run = |arguments: &str| vec![one(arguments)];
    let before = run("PASS: x|PASS: y|SKIP: z|=0");
    let golden = expect::list("", &before, false);
    assert_eq!(golden, "PASS max-intel/t 2\nSKIP max-intel/t: z\n");
    assert_eq!(expect::differences(&golden, &before, false), Vec::<String>::new());
    assert_eq!(
        expect::differences(&golden, &run("PASS: x|SKIP: y|SKIP: z|=0"), false),
        ["- PASS max-intel/t 2", "+ PASS max-intel/t 1", "+ SKIP max-intel/t: y"]
    );
    assert_eq!(expect::differences(&golden, &run("FAIL: x|=1"), false).len(), 2);
    // A test that did not run is missing, unless only a part was asked for.
    let more = format!("# of\n# these\n{golden}PASS max-amd/t 1\nSKIP max-intel/u: a: b\n\n");
    let missing = ["- PASS max-amd/t 1", "- SKIP max-intel/u: a: b"];
    assert_eq!(expect::differences(&more, &before, false), missing);
    assert_eq!(expect::differences(&more, &before, true), Vec::<String>::new());
    assert_eq!(expect::differences(&more, &run("FAIL: x|=1"), true).len(), 2);
    // Written again, a list keeps its head, and of a part the lines of the others.
    let one = run("PASS: x|=0");
    assert_eq!(expect::list(&more, &one, false), "# of\n# these\nPASS max-intel/t 1\n");
    let kept = "# of\n# these\nPASS max-amd/t 1\nPASS max-intel/t 1\nSKIP max-intel/u: a: b\n";
    assert_eq!(expect::list(&more, &one, true), kept);
}

/// What is dispatched: the case's name, and the line of the section that it came from.
type Dispatch = Vec<(String, usize)>;

/// Properties P-1.1 to P-1.3 of a dispatch: each section has one base, in order; variants follow it; names are unique.
fn dispatch_is_sound(definitions: &[Definition], cases: &[(String, usize)]) -> bool {
    let bases: Vec<&str> =
        cases.iter().filter(|(name, _)| !name.contains('-')).map(|(n, _)| n.as_str()).collect();
    let in_order = bases == definitions.iter().map(|d| d.name.as_str()).collect::<Vec<_>>();
    let mut section = "";
    let follow = cases.iter().all(|(name, _)| {
        if !name.contains('-') {
            section = name;
        }
        name.split('-').next() == Some(section)
    });
    let lines = cases.iter().all(|(name, line)| {
        definitions.iter().any(|d| d.line == *line && name.split('-').next() == Some(d.name.as_str()))
    });
    let unique: BTreeSet<_> = cases.iter().map(|(name, _)| name).collect();
    in_order && follow && lines && unique.len() == cases.len()
}

const ARCHES: [Option<&str>; 3] = [None, Some("x86_64"), Some("i386")];
const ACCELS: [Option<&str>; 3] = [None, Some("kvm"), Some("tcg")];
const GROUPS: [Option<&str>; 4] = [None, Some("vmx"), Some("vm"), Some("nodefault")];
const CONDITIONS: [Option<&str>; 3] = [None, Some("true"), Some("false")];

/// A section, as places in the tables above.
#[derive(Clone, Debug)]
struct Drawn {
    name: String,
    arch: usize,
    accel: usize,
    groups: Vec<usize>,
    condition: usize,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let groups = proptest::collection::vec(0..4_usize, 0..3);
    let parts = ("[ab]{1,2}", 0..3_usize, 0..3_usize, groups, 0..3_usize);
    parts.prop_map(|(name, arch, accel, groups, condition)| Drawn { name, arch, accel, groups, condition })
}

proptest! {
    #[test]
    fn every_list_is_dispatched_soundly_and_mutants_are_not(
        sections in proptest::collection::vec(("(# [a-z]*\n)?", proptest::collection::vec("(file|smp|x) = [a-z]{1,4}", 0..4)), 2..8),
        others in proptest::collection::btree_set(2_u8..=8, 1..3),
    ) {
        let mut list = String::from("file = stray\n");
        for (number, (comment, keys)) in sections.iter().enumerate() {
            list.push_str(&format!("{comment}[t{number}]\n{}\n", keys.join("\n")));
        }
        let definitions = Definition::parse_all(&list);
        prop_assert_eq!(definitions.len(), sections.len());
        let generators = vec![on_processors(others.into_iter().collect())];
        let cases = plan(&definitions, Path::new("/nowhere"), &Request { generators, ..Request::default() });
        let cases: Dispatch = cases.into_iter().map(|c| (c.name, c.definition.line)).collect();
        prop_assert!(dispatch_is_sound(&definitions, &cases));
        // M-1.1: an empty name in front. A base lost; two swapped; a variant twice; a record of another section (M-1.2).
        let mutated = |change: &dyn Fn(&mut Dispatch)| {
            let mut cases = cases.clone();
            change(&mut cases);
            !dispatch_is_sound(&definitions, &cases)
        };
        let last = cases.len() - 1;
        prop_assert!(mutated(&|c| c.insert(0, (String::new(), 0))));
        prop_assert!(mutated(&|c| drop(c.remove(0))));
        prop_assert!(mutated(&|c| c.swap(0, last)));
        prop_assert!(mutated(&|c| c.push(c[last].clone())));
        prop_assert!(mutated(&|c| c[0].1 = c[last].1));
    }

    /// Property P-1.4: what is asked for of a section, and why it is skipped, in the words of kvm-unit-tests' own script
    /// (`scripts/runtime.bash`); sections are drawn, the list is written from them, and answers are worked out from what
    /// was drawn.
    #[test]
    fn the_same_tests_are_selected_as_by_upstreams_script(
        sections in proptest::collection::vec(drawn(), 1..8),
        arch in 0..3_usize, claimed in 0..3_usize, group in 0..4_usize, all: bool, filter in "[ab]?",
    ) {
        let request = Request {
            filter: Regex::new(&filter).ok(),
            group: GROUPS[group].map(str::to_owned),
            all,
            arch: ARCHES[arch].unwrap_or("x86_64").into(),
            accel: ACCELS[claimed].map(str::to_owned),
            ..Request::default()
        };
        let (mut list, mut expected) = (String::new(), Vec::new());
        for (number, section) in sections.iter().enumerate() {
            let name = format!("{}{number}", section.name);
            list.push_str(&format!("[{name}]\nfile = none\n"));
            let keys = [
                ("arch", ARCHES[section.arch]), ("accel", ACCELS[section.accel]), ("disabled_if", CONDITIONS[section.condition]),
            ];
            for (key, value) in keys {
                list.extend(value.map(|value| format!("{key} = {value}\n")));
            }
            let groups: Vec<&str> = section.groups.iter().filter_map(|group| GROUPS[*group]).collect();
            list.push_str(&format!("groups = {}\n", groups.join(" ")));
            if !name.contains(&filter) || GROUPS[group].is_some_and(|asked| !groups.contains(&asked)) {
                continue;
            }
            let other = |own: Option<&str>, asked: &str| own.is_some_and(|own| own != asked);
            let (own, condition) = (ACCELS[section.accel], CONDITIONS[section.condition]);
            expected.push(name + " " + &if groups.contains(&"nodefault") && GROUPS[group].is_none() && !all {
                "test marked as manual run only".to_owned()
            } else if other(ARCHES[section.arch], &request.arch) {
                format!("{} only", ARCHES[section.arch].unwrap())
            } else if ACCELS[claimed].is_some_and(|claimed| other(own, claimed)) {
                format!("{} only, but ACCEL={}", own.unwrap(), ACCELS[claimed].unwrap())
            } else if condition == Some("true") {
                "disabled because: true".to_owned()
            } else {
                "Test file '/nowhere/none' not found".to_owned()
            });
        }
        prop_assert_eq!(names(&list, &request), expected);
    }

    #[test]
    fn no_text_breaks_the_reader(text in "(\\[[a-z]*\\]|[a-z_]+ = ?[\"'`a-z\\\\]*|\"\"\"|\n|.){0,40}") {
        let definitions = Definition::parse_all(&text);
        plan(&definitions, Path::new("/nowhere"), &Request::default());
    }
}

#[test]
fn hosted_tests_run_in_a_vm_on_either_vendors_host() {
    let list = "[kvm]\nfile = kvm.flat\n";
    for (hosted, verdict) in [(true, Verdict::Pass), (false, Verdict::Fail)] {
        let cpus = ["max-intel", "max-amd"].map(|name| Processor::named(name).unwrap());
        let request = Request { hosted, generators: vec![processors(cpus.to_vec())], ..Request::default() };
        let outcomes = run_list(list, &request, 2);
        assert_eq!(outcomes.iter().map(|o| o.verdict).collect::<Vec<_>>(), [verdict; 2]);
    }
}
