//! `usher check`: what this machine has, and what is wrong, in words that one can act on.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use aot_cache::Cache;
use host::protocol::NO_MODELS;
use nix::sys::resource::{Resource, getrlimit};

use crate::cli::Check;
use crate::cpus::Share;
use crate::module::{Kind, Module};
use crate::processes::{self, Engine};
use crate::say;

/// Prints a line for each finding; fails if one of them keeps the service from running.
pub fn run(options: &Check) -> Result<ExitCode> {
    let mut findings = Findings { wrong: false };
    findings.about_engine();
    let kind = options.module.as_deref().and_then(|path| findings.about_module(path));
    if kind != Some(Kind::Compiled) {
        findings.about_cache(options);
    }
    findings.about_limits();
    Ok(if findings.wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Findings {
    wrong: bool,
}

impl Findings {
    fn good(&self, what: &str, text: impl std::fmt::Display) {
        say::out(format_args!("ok     {what:<12} {text}"));
    }

    fn note(&self, what: &str, text: impl std::fmt::Display) {
        say::out(format_args!("note   {what:<12} {text}"));
    }

    fn bad(&mut self, what: &str, text: impl std::fmt::Display) {
        self.wrong = true;
        say::out(format_args!("WRONG  {what:<12} {text}"));
    }

    fn about_engine(&mut self) {
        let about = match Engine::find().and_then(|engine| engine.about()) {
            Ok(about) => about,
            Err(error) => return self.bad("WasmEdge", format_args!("{error:#}")),
        };
        let compiles = if about.compiles { "compiles ahead of time" } else { "serves compiled modules only" };
        self.good("WasmEdge", format_args!("{}, which {compiles}", about.wasmedge));
        match &about.wasi {
            None => self.good("poll", "usher's own: idle connections cost nothing"),
            Some(why) => self.bad("poll", format_args!("{why}")),
        }
        match about.landlock {
            true => self.good("confinement", "workers can open their folders only, and start nothing"),
            false => self.note(
                "confinement",
                "this kernel has no landlock: workers can start nothing, and open what their user can",
            ),
        }
        match processes::standin() {
            Some(path) => self.good("LLVM", format_args!("not loaded for serving ({} stands in)", path.display())),
            None if !about.compiles => self.good("LLVM", "not there, and not needed for serving"),
            None => self.note("LLVM", "no stand-in: where WasmEdge loads LLVM, serving takes 40 MB more"),
        }
        let plugins = if about.plugins.is_empty() { "none".to_owned() } else { about.plugins.join(", ") };
        self.good("extensions", plugins);
        match about.models {
            Some(plugin) => self.good("models", format_args!("by {}", plugin.display())),
            None => self.note("models", format_args!("cannot be run: {NO_MODELS}")),
        }
    }

    fn about_cache(&mut self, options: &Check) {
        let folder = options.cache.clone().map_or_else(Cache::folder_for_user, Ok);
        match folder.and_then(|folder| Cache::at(folder.clone()).check().map(|()| folder)) {
            Ok(folder) => self.good("cache", folder.display()),
            Err(error) => self.bad("cache", format_args!("{error:#}")),
        }
    }

    fn about_limits(&mut self) {
        let share = Share::of_this_process();
        self.good("workers", format_args!("{}: {}", share.count, share.reason));
        match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, _)) if soft < 256 => {
                self.note("open files", format_args!("{soft}: few connections; raise it with `ulimit -n`"));
            }
            Ok((soft, hard)) => self.good("open files", format_args!("{soft} (at most {hard})")),
            Err(error) => self.bad("open files", error),
        }
    }

    /// Gives the module's kind, if it is one.
    fn about_module(&mut self, path: &Path) -> Option<Kind> {
        match Module::read(path) {
            Ok(module) => {
                let kind = match module.kind {
                    Kind::Portable => "portable",
                    Kind::Compiled => "compiled",
                };
                self.good("module", format_args!("{} ({kind}, {} settings)", path.display(), module.settings.len()));
                Some(module.kind)
            }
            Err(error) => {
                self.bad("module", format_args!("{error:#}"));
                None
            }
        }
    }
}
