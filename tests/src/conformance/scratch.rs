//! The workspace in which the published crate is built against the model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::documents::{cargo, root};

/// Where it is, and which version of kvm-ioctls it holds.
pub(super) struct Scratch {
    pub(super) folder: PathBuf,
    pub(super) version: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// The version of kvm-ioctls that `models/kvm-ioctls` stands in for.
fn wanted() -> Result<String, String> {
    let manifest = include_str!("../../../models/kvm-ioctls/Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    line.and_then(|rest| rest.split_once('"'))
        .map(|(version, _)| version.to_owned())
        .ok_or_else(|| "models/kvm-ioctls has no version".to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    }
    // An unchanged file keeps its time, so that cargo builds nothing anew.
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Copies the text files of a crate that cargo has unpacked, its manifest with a change.
fn copy(from: &Path, to: &Path, change: (&str, &str)) -> Result<(), String> {
    let entries = fs::read_dir(from).map_err(|e| format!("cannot read {}: {e}", from.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("cannot read {}: {e}", from.display()))?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name), ("", ""))?;
        } else if name != "Cargo.lock" {
            let bytes = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            let changed = if name == "Cargo.toml" && !change.0.is_empty() {
                text.replace(change.0, change.1)
            } else {
                text.into_owned()
            };
            write(&to.join(name), &changed)?;
        }
    }
    Ok(())
}

/// The crates that a package depends on, unpacked.
fn fetch(folder: &Path, version: &str) -> Result<Metadata, String> {
    let manifest = format!(
        "[workspace]\n[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
         [dependencies]\nkvm-ioctls = \"={version}\"\n"
    );
    write(&folder.join("Cargo.toml"), &manifest)?;
    write(&folder.join("lib.rs"), "")?;
    let output = Command::new(cargo())
        .args(["metadata", "--format-version", "1"])
        .current_dir(folder)
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("kvm-ioctls {version} cannot be fetched:\n{why}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cannot read cargo's metadata: {e}"))
}

/// Puts the workspace together.
pub(super) fn prepare() -> Result<Scratch, String> {
    let version = wanted()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = root().join(target).join("kvm-ioctls");
    let metadata = fetch(&folder.join("fetch"), &version)?;
    let package = |name: &str| {
        let found = metadata.packages.iter().find(|package| package.name == name);
        found.ok_or_else(|| format!("kvm-ioctls {version} does not depend on {name}"))
    };
    let [client, calls] = [package("kvm-ioctls")?, package("vmm-sys-util")?];
    // One lock file cannot hold two packages of the same name and version.
    let renamed = ("name = \"vmm-sys-util\"", "name = \"vmm-sys-util-real\"");
    for (package, place, change) in [(client, "client", ("", "")), (calls, "real", renamed)] {
        let unpacked = package.manifest_path.parent().ok_or("a package without a folder")?;
        copy(unpacked, &folder.join(place), change)?;
    }
    let process = root().join("models/kvm-process");
    let facade = format!(
        "[package]\nname = \"vmm-sys-util\"\nversion = \"{}\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
         [features]\nwith-serde = [\"real/with-serde\"]\n[dependencies]\n\
         real = {{ package = \"vmm-sys-util-real\", path = \"../real\" }}\nrootmode-kvm-process = {{ path = {process:?} }}\n\
         libc = \"0.2\"\nnix = {{ version = \"0.30\", default-features = false }}\n",
        calls.version
    );
    write(&folder.join("facade/Cargo.toml"), &facade)?;
    write(&folder.join("facade/lib.rs"), include_str!("../../kvm-ioctls/facade.rs"))?;
    let workspace = "[workspace]\nresolver = \"2\"\nmembers = [\"client\", \"facade\"]\nexclude = [\"real\", \"fetch\"]\n\
         [patch.crates-io]\nvmm-sys-util = { path = \"facade\" }\n";
    write(&folder.join("Cargo.toml"), workspace)?;
    if !folder.join("Cargo.lock").exists() {
        write(&folder.join("Cargo.lock"), &read(&root().join("Cargo.lock"))?)?;
    }
    Ok(Scratch { folder, version })
}
