//! A compiler that a test is in charge of.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Builder, artifacts};

/// An usher whose engine does not compile: it waits until it is allowed to, and takes code of the service that
/// is there already. Everything else is the real engine's.
#[derive(Debug)]
pub struct Compiler {
    folder: TempDir,
    /// The engine takes a line from it for each compilation.
    gate: File,
}

impl Compiler {
    /// One that has to wait for [`allow`](Self::allow).
    pub fn held() -> Self {
        let usher = artifacts::usher();
        // Where a file can have the program's as another name: a copy could be busy when it is to be started.
        let folder = tempfile::tempdir_in(usher.parent().unwrap()).unwrap();
        fs::hard_link(&usher, folder.path().join("usher")).unwrap();
        let gate = folder.path().join("gate");
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        // To read as well, so that opening it waits for nobody.
        let gate = File::options().read(true).write(true).open(gate).unwrap();
        let compiler = Self { folder, gate };
        compiler.write_engine(&usher.with_file_name("usher-engine"));
        compiler
    }

    /// Lets so many compilations go on, those to come included.
    pub fn allow(&self, compilations: usize) {
        (&self.gate).write_all("go\n".repeat(compilations).as_bytes()).unwrap();
    }

    /// How many have begun.
    pub fn compilations(&self) -> usize {
        fs::read_to_string(self.folder.path().join("begun")).unwrap_or_default().lines().count()
    }

    /// Has a service use it, with a cache of its own.
    pub fn of(&self, builder: Builder) -> Builder {
        builder.program(&self.folder.path().join("usher")).arg(&format!("--cache={}", self.path("cache").display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_engine(&self, real: &Path) {
        let place = self.path("usher-engine");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = compile ]; then\n  echo >> {begun}\n  read -r _ < {gate}\n  exec cp {code} \"$3\"\nfi\nexec {real} \"$@\"\n",
            begun = self.path("begun").display(),
            gate = self.path("gate").display(),
            code = artifacts::compiled().display(),
            real = real.display(),
        );
        // By another process: what this one has open, one that it starts meanwhile has open, too, and what is
        // open to be written is busy.
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat > \"$0\" && chmod +x \"$0\""]).arg(&place).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
}
