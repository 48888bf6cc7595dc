//! `rootmode cpu`: the processor models, and everything that software can find out about one.

use clap::{Args, Subcommand};
use miette::{Result, miette};
use rootmode::processor::{NAMES, Processor, Sheet, about};
use serde::Serialize;

use super::{Finding, Format, print_json, table};

/// Arguments of `rootmode cpu`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models.
    List {
        /// How the list is printed.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show every CPUID leaf and MSR of a processor.
    Show {
        /// A model, then changes by commas: +FLAG, -FLAG, FLAG=on, FLAG=off, phys-bits=N.
        #[arg(value_name = "MODEL[,CHANGE...]")]
        cpu: String,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// A line of the list.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    about: String,
    features: usize,
    lacks: usize,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    match &arguments.command {
        Command::List { format } => list(*format)?,
        Command::Show { cpu, format } => {
            let processor = Processor::parse(cpu).map_err(|e| miette!("{cpu}: {e}"))?;
            let sheet = Sheet::of(&processor);
            match format {
                Format::Json => print_json(&sheet)?,
                Format::Text => print(&sheet),
            }
        }
    }
    Ok(Finding::Nothing)
}

fn list(format: Format) -> Result<()> {
    let line = |name: &&'static str| {
        let processor = Processor::named(name).map_err(|e| miette!("{e}"))?;
        let features = processor.model().features().iter().count();
        Ok(Line { name, about: about(name), features, lacks: processor.lacks().len() })
    };
    let lines: Vec<Line> = NAMES.iter().map(line).collect::<Result<_>>()?;
    if format == Format::Json {
        return print_json(&lines);
    }
    let row = |line: Line| {
        vec![line.name.to_owned(), line.features.to_string(), line.lacks.to_string(), line.about]
    };
    table::print(
        &["model", "features", "lacks", "what it is"],
        &lines.into_iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

fn print(sheet: &Sheet) {
    let bold = anstyle::Style::new().bold();
    anstream::println!(
        "{bold}{}{bold:#}: {:?}, family {:#x}, model {:#x}, stepping {}, {} physical-address bits",
        sheet.cpu,
        sheet.vendor,
        sheet.family,
        sheet.model,
        sheet.stepping,
        sheet.physical_bits
    );
    anstream::println!("{bold}features{bold:#}: {}", sheet.features.join(" "));
    if !sheet.vmx.is_empty() {
        anstream::println!("{bold}VMX{bold:#}: {}", sheet.vmx.join(" "));
    }
    if !sheet.lacks.is_empty() {
        anstream::println!("{bold}the real part also has{bold:#}: {}", sheet.lacks.join(", "));
    }
    anstream::println!();
    let leaf = |leaf: &rootmode::processor::Leaf| {
        let registers = [&leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx];
        let front = [leaf.leaf.clone(), leaf.subleaf.to_string()];
        front.into_iter().chain(registers.map(String::clone)).collect()
    };
    let rows: Vec<Vec<String>> = sheet.cpuid.iter().map(leaf).collect();
    table::print(&["leaf", "subleaf", "EAX", "EBX", "ECX", "EDX"], &rows);
    anstream::println!();
    let register = |register: &rootmode::processor::Register| {
        let access = match (&register.value, register.writable) {
            (Some(_), true) => "read, write",
            (Some(_), false) => "read",
            (None, _) => "write",
        };
        let value = register.value.clone().unwrap_or_else(|| "-".into());
        vec![register.index.clone(), value, access.into(), register.name.unwrap_or("").into()]
    };
    let rows: Vec<Vec<String>> = sheet.msrs.iter().map(register).collect();
    table::print(&["MSR", "value", "access", "name"], &rows);
}
