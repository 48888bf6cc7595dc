//! Initial RAM disks: busybox, modules as Debian ships them, the client, and the rows' init.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::cpio::Archive;
use super::packages::files;
use super::rows::Vendor;

static INIT: &[u8] = include_bytes!("../../linux/init");

/// What init calls.
const APPLETS: [&str; 14] = [
    "sh", "mount", "cat", "echo", "grep", "tr", "insmod", "rmmod", "reboot", "poweroff", "dmesg", "ls",
    "sleep", "uname",
];

/// Modules by name, in the order in which they can be inserted.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) order: Vec<String>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Modules {
    /// `name` and all that it depends on, from the unpacked kernel package `root`.
    pub(super) fn with_dependencies(root: &Path, name: &str) -> Result<Self, String> {
        let mut modules = Self::default();
        modules.add(root, name)?;
        Ok(modules)
    }

    /// The parameters of `vendor`'s module that have to be on, as far as this kernel's has them.
    pub(super) fn parameters(&self, vendor: Vendor) -> impl Iterator<Item = &'static str> {
        let module = self.contents.get(vendor.module());
        let has =
            move |name: &&str| module.is_some_and(|m| contains(m, format!("parmtype={name}:").as_bytes()));
        vendor.parameters().iter().copied().filter(has)
    }

    fn add(&mut self, root: &Path, name: &str) -> Result<(), String> {
        if self.contents.contains_key(name) {
            return Ok(());
        }
        let contents = read_module(root, name)?;
        for needed in depends(&contents) {
            self.add(root, &needed)?;
        }
        self.order.push(name.to_owned());
        self.contents.insert(name.to_owned(), contents);
        Ok(())
    }
}

/// What is in a disk.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pub(super) modules: Option<&'a Modules>,
    pub(super) client: Option<&'a [u8]>,
    /// The kernel and the disk of a second Linux.
    pub(super) guest: Option<(&'a [u8], &'a [u8])>,
    /// Generated programs.
    pub(super) programs: Option<&'a [u8]>,
}

/// The disk. It is not compressed: a machine reads it faster than it unpacks it.
pub(super) fn build(busybox: &[u8], contents: &Contents<'_>) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys"] {
        archive.folder(folder);
    }
    archive.character_device("dev/console", 5, 1);
    archive.program("init", INIT);
    archive.program("bin/busybox", busybox);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    if let Some(modules) = contents.modules {
        archive.folder("modules");
        for (name, module) in &modules.contents {
            archive.program(&format!("modules/{name}.ko"), module);
        }
    }
    if let Some(client) = contents.client {
        archive.program("client", client);
    }
    if let Some(programs) = contents.programs {
        archive.program("programs", programs);
    }
    if let Some((kernel, disk)) = contents.guest {
        archive.folder("guest");
        archive.program("guest/vmlinuz", kernel);
        archive.program("guest/initrd", disk);
    }
    archive.finish()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The names in a module's `depends=`, as files are named.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('_', "-");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A module's bytes; the newer kernel's are compressed.
fn read_module(root: &Path, name: &str) -> Result<Vec<u8>, String> {
    let found = find(&root.join("lib/modules"), name)?;
    let path = found.ok_or_else(|| format!("{}: no module {name}", root.display()))?;
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(&path).output();
        let output = output.map_err(|error| format!("cannot run xz (package xz-utils): {error}"))?;
        return if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(format!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim()))
        };
    }
    read(&path)
}

fn find(folder: &Path, name: &str) -> Result<Option<std::path::PathBuf>, String> {
    for path in files(folder)? {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
            continue;
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().replace('_', "-");
        if file == format!("{name}.ko") || file == format!("{name}.ko.xz") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_that_a_module_depends_on_are_named_as_their_files_are() {
        assert_eq!(depends(b"license=GPL\0depends=kvm,irq_bypass\0name=x\0"), ["kvm", "irq-bypass"]);
        assert_eq!(depends(b"license=GPL\0depends=\0"), [""; 0]);
    }
}
