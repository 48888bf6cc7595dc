//! Debian's packages by name: downloaded with apt-get into a folder, unpacked with dpkg-deb, never installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of downloaded and unpacked packages, used again by the next run.
#[derive(Debug)]
pub(super) struct Packages {
    folder: PathBuf,
}

impl Packages {
    pub(super) fn new(folder: &Path) -> Result<Self, String> {
        let packages = Self { folder: folder.to_owned() };
        for name in ["deb", "root"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(packages)
    }

    /// The unpacked package `name`, or, if `name` only depends on the one that is meant, that one.
    pub(super) fn get(&self, name: &str) -> Result<PathBuf, String> {
        let name = match self.depends(name) {
            Ok(found) => found,
            Err(_) => {
                update()?;
                self.depends(name)?
            }
        };
        let root = self.folder.join("root").join(&name);
        if root.is_dir() {
            return Ok(root);
        }
        if self.download(&name).is_err() {
            // The lists may name a version that the archive no longer has.
            update()?;
            self.download(&name)?;
        }
        let package = self.file(&name)?.ok_or_else(|| format!("apt-get download left no file of {name}"))?;
        // Whoever is interrupted leaves no folder that looks complete.
        let partial = self.folder.join("root").join(format!(".{name}"));
        run("dpkg-deb", [OsStr::new("-x"), package.as_os_str(), partial.as_os_str()], &self.folder)?;
        std::fs::rename(&partial, &root).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(root)
    }

    /// The package that a meta-package for kernels depends on; others stand for themselves.
    fn depends(&self, name: &str) -> Result<String, String> {
        let text = run("apt-cache", ["depends", "--important", name], &self.folder)?;
        let image = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let mut image =
            image.filter(|depends| name.starts_with("linux-image-") && depends.starts_with("linux-image-"));
        Ok(image.next().unwrap_or(name).to_owned())
    }

    fn download(&self, name: &str) -> Result<(), String> {
        if self.file(name)?.is_none() {
            run("apt-get", ["download", "-q", name], &self.folder.join("deb"))?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Result<Option<PathBuf>, String> {
        let folder = self.folder.join("deb");
        let prefix = format!("{name}_");
        Ok(files(&folder)?.into_iter().find(|path| {
            path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
                && path.extension().is_some_and(|extension| extension == "deb")
        }))
    }
}

fn update() -> Result<(), String> {
    run("apt-get", ["update", "-q"], Path::new("/")).map(|_| ())
}

/// What is in `folder`, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// What `program` printed in `folder`.
pub(super) fn run<I, S>(program: &str, arguments: I, folder: &Path) -> Result<String, String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
