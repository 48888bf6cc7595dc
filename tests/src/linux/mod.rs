//! `rootmode-tests linux`: Debian's kernels on this machine, and their KVM inside it.
//!
//! Packages are downloaded by name and unpacked; a row is a run of `rootmode` with a kernel, an initial RAM disk that is written
//! here, and a judgement of what came out of the serial port.

mod client;
mod cpio;
mod dumps;
mod initramfs;
mod judge;
mod packages;
mod page;
mod programs;
mod rows;
mod run;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use crate::bench::simulator;
use crate::documents::root;
use crate::table::Format;
use dumps::Dump;
use initramfs::{Contents, Modules, build, read};
use packages::Packages;
use page::Page;
use programs::Programs;
use rows::{KERNELS, Kernel, Row, Vendor, What};

/// Ticks after which a row has failed: twice what the longest takes.
const LIMIT: u64 = 40_000_000_000;
/// How much more processor time than QEMU's a plain boot may take.
const TCG_SHARE: f64 = 4.0;

/// Arguments of `rootmode-tests linux`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Only rows whose name contains one of these.
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Only a part that takes less than two minutes; which, the number of commits decides.
    #[arg(long)]
    sample: bool,
    /// So many generated hypervisors in each of the rows real-* instead of the table.
    #[arg(long, value_name = "N", conflicts_with_all = ["sample", "write"])]
    generated: Option<u64>,
    /// Print the names of the rows and end.
    #[arg(long)]
    list: bool,
    /// Run each row twice, and compare the digests of the machines.
    #[arg(long)]
    twice: bool,
    /// Put each row into docs/linux.md, in place of its last run.
    #[arg(long)]
    write: bool,
    /// Rows at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Where packages, disks and logs are kept for the next run; by default target/linux.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The simulator; by default the rootmode beside this program.
    #[arg(long, value_name = "FILE")]
    rootmode: Option<PathBuf>,
    /// How to print the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A line of the result.
#[derive(Debug, Default, Serialize)]
struct Measured {
    row: String,
    ticks: u64,
    /// Of the processor that ran the simulator.
    seconds: f64,
    /// How often guests of KVM were left.
    exits: u64,
    digest: Option<String>,
    /// What is wrong; nothing if the row works.
    failures: Vec<String>,
    /// What the row says beyond having worked.
    notes: Vec<String>,
    #[serde(skip)]
    dumps: Vec<Dump>,
}

impl Measured {
    fn failed(row: String, why: String) -> Self {
        Self { row, failures: vec![why], ..Self::default() }
    }
}

/// A kernel, with what its disks are made of.
#[derive(Debug)]
struct Unpacked {
    kernel: Kernel,
    image: PathBuf,
    intel: Modules,
    amd: Modules,
}

impl Unpacked {
    fn new(packages: &Packages, kernel: Kernel) -> Result<Self, String> {
        let root = packages.get(kernel.package)?;
        let image = packages::files(&root.join("boot"))?
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
        let image = image.ok_or_else(|| format!("{}: no boot/vmlinuz", root.display()))?;
        let modules = |vendor: Vendor| Modules::with_dependencies(&root, vendor.module());
        Ok(Self { kernel, image, intel: modules(Vendor::Intel)?, amd: modules(Vendor::Amd)? })
    }

    fn modules(&self, vendor: Vendor) -> &Modules {
        match vendor {
            Vendor::Intel => &self.intel,
            Vendor::Amd => &self.amd,
        }
    }
}

/// What rows are run with.
struct Bench {
    rootmode: PathBuf,
    folder: PathBuf,
    busybox: Vec<u8>,
    kernels: Vec<Unpacked>,
    client: Option<Vec<u8>>,
}

impl Bench {
    fn new(arguments: &Arguments, rows: &[Row]) -> Result<Self, String> {
        let rootmode = simulator(arguments.rootmode.as_deref())?;
        let folder = arguments.folder.clone().unwrap_or_else(|| root().join("target/linux"));
        let folder =
            std::path::absolute(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let packages = Packages::new(&folder)?;
        let busybox = read(&packages.get("busybox-static")?.join("bin/busybox"))?;
        let wanted = |kernel: &Kernel| rows.iter().any(|row| row.kernel == *kernel);
        let kernels = KERNELS.into_iter().filter(wanted).map(|kernel| Unpacked::new(&packages, kernel));
        let kernels = kernels.collect::<Result<Vec<_>, _>>()?;
        let needs = |row: &Row| !matches!(row.what, What::Boot | What::Modules);
        let client = rows.iter().any(needs).then(|| client::build(&folder)).transpose()?;
        Ok(Self { rootmode, folder, busybox, kernels, client })
    }

    /// Writes `contents` for a process to read.
    fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, String> {
        let path = self.folder.join(name);
        std::fs::write(&path, contents).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn run(&self, row: &Row) -> Measured {
        self.try_run(row).unwrap_or_else(|why| Measured::failed(row.name(), why))
    }

    fn try_run(&self, row: &Row) -> Result<Measured, String> {
        let kernel = self.kernels.iter().find(|kernel| kernel.kernel == row.kernel);
        let kernel = kernel.ok_or("its kernel was not unpacked")?;
        let name = row.name();
        let modules = kernel.modules(row.vendor);
        let inside = match row.what {
            What::Linux { .. } => Some(Contents::default()),
            What::Nested => Some(Contents {
                modules: Some(modules),
                client: self.client.as_deref(),
                guest: None,
                programs: None,
            }),
            What::Boot | What::Hosted | What::Modules | What::Client | What::Dump | What::Real { .. } => None,
        };
        let guest = inside
            .map(|inside| read(&kernel.image).map(|image| (image, build(&self.busybox, &inside))))
            .transpose()?;
        let programs = match row.what {
            What::Real { programs } => Some(Programs::new(row.vendor, programs)?),
            _ => None,
        };
        let contents = Contents {
            modules: (!matches!(row.what, What::Boot | What::Hosted)).then_some(modules),
            client: self.client.as_deref(),
            guest: guest.as_ref().map(|(image, disk)| (&**image, &**disk)),
            programs: programs.as_ref().map(|programs| &*programs.file),
        };
        let disk = self.write(&format!("{name}.initrd"), &build(&self.busybox, &contents))?;
        let mut command = Command::new(&self.rootmode);
        command.arg("run").arg(&kernel.image).arg("--initrd").arg(&disk);
        if row.what == What::Hosted {
            command.arg("--hosted");
        }
        command.args(["--cpu", row.vendor.model(), "--cpus", &row.processors.to_string()]);
        command.args(["--memory", if contents.guest.is_some() { "1G" } else { "512M" }]);
        command.args(["--limit", &LIMIT.to_string(), "--format", "json", "--digest"]);
        command.arg("--append").arg(command_line(row, modules));
        let ended = run::run(&mut command, &self.log(&name))?;
        let _ = std::fs::remove_file(&disk);
        let summary = ended.summary()?;
        let mut measured = Measured {
            row: name,
            ticks: summary.ticks,
            seconds: ended.seconds,
            exits: summary.exits,
            digest: summary.digest,
            ..Measured::default()
        };
        if ended.status != Some(0) {
            measured
                .failures
                .push(format!("no power-off: {}", ended.errors.lines().last().unwrap_or_default()));
        }
        let (refused, broken) = (summary.refused_entries, row.refusals().len());
        if refused != broken as u64 {
            measured.failures.push(format!("{refused} refused VM entries, of which {broken} were broken"));
        }
        let judged = judge::judge(row, modules, &ended.output);
        measured.failures.extend(judged.failures);
        measured.failures.extend(programs.into_iter().flat_map(|programs| programs.failures));
        measured.notes = judged.notes;
        measured.dumps = judged.dumps;
        Ok(measured)
    }

    /// The plain boot of `kernel` here and on QEMU TCG, one after the other.
    fn beside_tcg(&self, kernel: &Unpacked) -> Result<Measured, String> {
        let disk = build(&self.busybox, &Contents::default());
        let disk = self.write(&format!("{}.initrd", kernel.kernel.tcg_name()), &disk)?;
        let line = "console=ttyS0 panic=-1 row=boot";
        let mut ours = Command::new(&self.rootmode);
        ours.arg("run").arg(&kernel.image).arg("--initrd").arg(&disk);
        ours.args(["--memory", "512M", "--format", "json", "--digest", "--append", line]);
        let mut theirs = Command::new("qemu-system-x86_64");
        theirs.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-no-reboot"]);
        theirs.args(["-display", "none", "-serial", "stdio"]);
        theirs.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&disk).args(["-append", line]);
        let ours = run::run(&mut ours, &self.log(&format!("{}-here", kernel.kernel.tcg_name())))?;
        let theirs = run::run(&mut theirs, &self.log(&kernel.kernel.tcg_name()))
            .map_err(|error| format!("{error} (package qemu-system-x86)"))?;
        let summary = ours.summary()?;
        let share = ours.seconds / theirs.seconds.max(1e-3);
        let mut failures = Vec::new();
        for (who, ended) in [("here", &ours), ("on QEMU", &theirs)] {
            if ended.status != Some(0) || !ended.output.contains("ROOTMODE marker") {
                failures.push(format!("no marker and power-off {who}"));
            }
        }
        if share > TCG_SHARE {
            failures.push(format!("more than {TCG_SHARE} times QEMU's"));
        }
        Ok(Measured {
            row: kernel.kernel.tcg_name(),
            ticks: summary.ticks,
            seconds: ours.seconds,
            exits: summary.exits,
            digest: summary.digest,
            failures,
            dumps: Vec::new(),
            notes: vec![format!("QEMU TCG {:.2} s, here {share:.2} times that", theirs.seconds)],
        })
    }
}

/// What Linux is told: its own words, then init's.
fn command_line(row: &Row, modules: &Modules) -> String {
    let vendor = row.vendor;
    let mut words =
        vec!["console=ttyS0 panic=-1 printk.devkmsg=on".to_owned(), format!("vendor={}", vendor.name())];
    let inserted = format!("modules={}", modules.order.join(","));
    words.push(inserted.clone());
    match row.what {
        What::Boot | What::Hosted => words.push("row=boot".into()),
        What::Modules => words.push(format!("row=kvm options=\"{}\"", vendor.options())),
        What::Client => {
            let all = vendor.options().replace(' ', ",");
            let mut sets = vec![all.clone()];
            sets.extend(modules.parameters(vendor).map(|name| format!("{all},{name}=0")));
            words.push(format!("row=client sets=\"{}\"", sets.join(" ")));
        }
        What::Dump => {
            let entries: Vec<&str> = row.refusals().iter().map(|refusal| refusal.name).collect();
            words.push(format!(
                "row=dump options={} entries=\"{}\"",
                vendor.dump_option(),
                entries.join(" ")
            ));
        }
        What::Linux { second_stage, processors } => {
            let stage = u8::from(second_stage);
            words
                .push(format!("row=linux guests={processors} options=\"{}={stage}\"", vendor.second_stage()));
            words.push("guest=\"console=ttyS0 panic=-1 row=boot\"".into());
        }
        What::Real { .. } => words.push(format!("row=generated options=\"{}\"", vendor.options())),
        What::Nested => {
            words.push(format!("row=linux guests=1 options=\"{}\"", vendor.options()));
            // The second Linux's KVM has what the first one's gives it, and its guests are the last ones.
            let (name, console) = (vendor.name(), "console=ttyS0 panic=-1 printk.devkmsg=on");
            words.push(format!("guest=\"{console} vendor={name} {inserted} row=client sets=nested=0\""));
        }
    }
    words.join(" ")
}

/// The number of commits, so that each commit has another sample.
fn turn() -> usize {
    let output = Command::new("git").args(["rev-list", "--count", "HEAD"]).current_dir(root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// Runs the rows and prints the table; true if all work.
///
/// # Errors
/// Packages that are not to be had, and programs that cannot be run.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let chosen =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| name.contains(only));
    let rows = match arguments.generated {
        Some(programs) => Row::real(programs).collect(),
        None if arguments.sample => Row::sample(turn()),
        None => Row::all(),
    };
    let rows: Vec<Row> = rows.into_iter().filter(|row| chosen(&row.name())).collect();
    let plain = !arguments.sample && arguments.generated.is_none();
    let tcg: Vec<Kernel> = KERNELS.into_iter().filter(|kernel| plain && chosen(&kernel.tcg_name())).collect();
    if arguments.list {
        for name in rows.iter().map(Row::name).chain(tcg.iter().map(|kernel| kernel.tcg_name())) {
            println!("{name}");
        }
        return Ok(true);
    }
    let bench = Bench::new(arguments, &rows)?;
    let order = Row::all().iter().map(Row::name).chain(KERNELS.map(Kernel::tcg_name)).collect();
    let page = arguments.write.then(|| Mutex::new(Page::open(order)));
    let note = |measured: &mut Measured| {
        if let Some(page) = &page {
            let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
            measured.failures.extend(page.put(measured).err());
        }
        print(measured, arguments.format);
    };
    print_head(arguments.format);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(arguments.jobs)).build();
    let pool = pool.map_err(|error| error.to_string())?;
    let one = |row: &Row| {
        let mut measured = bench.run(row);
        if arguments.twice {
            let again = bench.run(row);
            if again.digest.is_none() || again.digest != measured.digest {
                measured.failures.push(format!("the second run's digest is {:?}", again.digest));
            }
        }
        if arguments.write && measured.failures.is_empty() {
            measured.failures.extend(dumps::keep(row, &measured.dumps).err());
        }
        note(&mut measured);
        measured
    };
    let mut table: Vec<Measured> = pool.install(|| rows.par_iter().map(one).collect());
    for kernel in tcg {
        let unpacked = match bench.kernels.iter().find(|unpacked| unpacked.kernel == kernel) {
            Some(unpacked) => bench.beside_tcg(unpacked),
            None => {
                Unpacked::new(&Packages::new(&bench.folder)?, kernel).and_then(|it| bench.beside_tcg(&it))
            }
        };
        let mut measured = unpacked.unwrap_or_else(|why| Measured::failed(kernel.tcg_name(), why));
        note(&mut measured);
        table.push(measured);
    }
    Ok(table.iter().all(|measured| measured.failures.is_empty()))
}

fn print_head(format: Format) {
    if matches!(format, Format::Text) {
        println!("{:28} {:>15} {:>8} {:>10}", "row", "ticks", "seconds", "exits");
    }
}

fn print(measured: &Measured, format: Format) {
    match format {
        Format::Json => println!("{}", serde_json::json!(measured)),
        Format::Text => {
            let Measured { row, ticks, seconds, exits, failures, notes, .. } = measured;
            let verdict = if failures.is_empty() { "works" } else { "FAILS" };
            println!("{row:28} {ticks:>15} {seconds:>8.2} {exits:>10}  {verdict}");
            for line in failures.iter().chain(notes) {
                println!("    {line}");
            }
        }
    }
}
