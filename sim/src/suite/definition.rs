//! [`Definition`]: one section of a `unittests.cfg`, as a record.

/// One section. Values are as written: quotes and backticks are still in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// The text between the brackets.
    pub name: String,
    /// Line of the header, from 1.
    pub line: usize,
    /// The image, relative to the list's folder.
    pub file: Option<String>,
    /// Number of processors, with QEMU's further topology behind a comma.
    pub smp: Option<String>,
    /// The guest's command line, as a shell's words.
    pub test_args: Option<String>,
    /// QEMU's options, as a shell's words (`qemu_params`, once `extra_params`).
    pub params: String,
    /// Groups.
    pub groups: Vec<String>,
    /// `i386` or `x86_64`, if only that.
    pub arch: Option<String>,
    /// Machine type, if only that.
    pub machine: Option<String>,
    /// Accelerator, if only that.
    pub accel: Option<String>,
    /// `path=value` words that must hold.
    pub check: Option<String>,
    /// A duration as `timeout(1)` takes it.
    pub timeout: Option<String>,
    /// A shell's condition.
    pub disabled_if: Option<String>,
}

impl Definition {
    /// Every section of a list, in order. Unknown keys and keys before the first section are ignored, as upstream does.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let line = line.trim_matches([' ', '\t']);
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if !name.is_empty() {
                    all.push(Self { name: name.to_owned(), line: number + 1, ..Self::default() });
                }
                continue;
            }
            let (Some(section), Some((key, value))) = (all.last_mut(), line.split_once('=')) else {
                continue;
            };
            let (key, value) = (key.trim_end_matches(' '), value.trim_start_matches(' '));
            if matches!(key, "qemu_params" | "extra_params") && value.starts_with("\"\"\"") {
                let rest = lines.by_ref().map(|(_, line)| line);
                section.params = several_lines(&value[3..], rest);
            } else {
                section.set(key, value);
            }
        }
        all
    }

    fn set(&mut self, key: &str, value: &str) {
        let slot = match key {
            "file" => &mut self.file,
            "smp" => &mut self.smp,
            "test_args" => &mut self.test_args,
            "arch" => &mut self.arch,
            "machine" => &mut self.machine,
            "accel" => &mut self.accel,
            "check" => &mut self.check,
            "timeout" => &mut self.timeout,
            "disabled_if" => &mut self.disabled_if,
            "qemu_params" | "extra_params" => return value.clone_into(&mut self.params),
            "groups" => return self.groups = value.split_whitespace().map(str::to_owned).collect(),
            _ => return,
        };
        // An empty value is as good as none.
        *slot = Some(value.to_owned()).filter(|value| !value.is_empty());
    }

    /// Whether the test is in `group`, as a whole word.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|word| word == group)
    }
}

/// A value in `"""`: an odd number of backslashes at a line's end joins it with the next one.
fn several_lines<'a>(first: &str, rest: impl Iterator<Item = &'a str>) -> String {
    let mut value = format!("{first}\n");
    for line in rest {
        let body = value.trim_end_matches('\n');
        let slashes = body.len() - body.trim_end_matches('\\').len();
        if slashes % 2 == 1 && body.len() + 1 == value.len() {
            value.truncate(body.len() - 1);
        }
        if let Some(last) = line.trim_end_matches([' ', '\t']).strip_suffix("\"\"\"") {
            value.push_str(last.trim_start_matches([' ', '\t']));
            break;
        }
        value.push_str(line.trim_matches([' ', '\t']));
        value.push('\n');
    }
    value
}
