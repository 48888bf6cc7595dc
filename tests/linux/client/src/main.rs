//! A client of Linux's KVM, for the inside of a simulated machine: small guests that exit in every way, and a second Linux.
//!
//! `client exits` runs every check and times exits, `client refused NAME...` breaks entries, `client linux KERNEL DISK PROCESSORS LINE`
//! boots a kernel, `client generated FILE` runs generated hypervisors. What is said goes to standard output, a line at a time, behind the word ROOTMODE.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod acpi;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod checks;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod generated;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod kvm;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod programs;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod refusals;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod uart;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["exits", ref only @ ..] => exits(only),
        ["refused", ref names @ ..] => refused(names),
        ["generated", file] => generated::run(file),
        ["linux", kernel, disk, processors, line] => guest::run(kernel, disk, processors, line),
        _ => {
            Err("client exits [CHECK...] | client refused NAME... | client generated FILE | client linux KERNEL DISK PROCESSORS LINE"
                .into())
        }
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            println!("ROOTMODE failed client: {why}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn exits(only: &[&str]) -> Result<(), String> {
    let kvm = kvm::Kvm::open().map_err(|error| format!("/dev/kvm: {error}"))?;
    for timed in checks::LOOPS.iter().filter(|_| only.is_empty()) {
        match checks::time(&kvm, timed) {
            Ok(clocks) => println!("ROOTMODE clocks {}={clocks}", timed.name),
            Err(why) => println!("ROOTMODE failed {}: {why}", timed.name),
        }
    }
    for check in checks::CHECKS.iter().filter(|check| only.is_empty() || only.contains(&check.name)) {
        match (check.run)(&kvm) {
            Ok(()) => println!("ROOTMODE passed {}", check.name),
            Err(why) => println!("ROOTMODE failed {}: {why}", check.name),
        }
    }
    println!("ROOTMODE done");
    Ok(())
}

/// Breaks an entry in each of these ways. What the kernel prints about one is between its two lines.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn refused(names: &[&str]) -> Result<(), String> {
    let kvm = kvm::Kvm::open().map_err(|error| format!("/dev/kvm: {error}"))?;
    for name in names {
        let refusal = refusals::REFUSALS.iter().find(|refusal| refusal.name == *name);
        let refusal = refusal.ok_or_else(|| format!("no way to break an entry is called {name}"))?;
        println!("ROOTMODE entry {name}");
        match refusal.reason(&kvm) {
            Ok(reason) => println!("ROOTMODE refused {name} {reason:#x}"),
            Err(why) => println!("ROOTMODE failed {name}: {why}"),
        }
    }
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("the client needs Linux on x86-64");
}
