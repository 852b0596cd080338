//! `--watch`: one reload for each finished new content, however it got there, and none without one.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use harness::{Compiler, Runtime, Service, artifacts, eventually, variant};
use tempfile::TempDir;

/// A service whose module is watched. Its compiler is as quick as a copy.
struct Watched {
    service: Service,
    compiler: Compiler,
    folder: TempDir,
    /// Contents that it was given so far, each of its own.
    contents: u8,
}

fn module(number: u8) -> Vec<u8> {
    variant(&artifacts::module(), number)
}

impl Watched {
    /// With a module in a folder, put there by `put`, which returns its path.
    fn start(put: impl FnOnce(&Path) -> PathBuf) -> Self {
        let (compiler, folder) = (Compiler::held(), tempfile::tempdir().unwrap());
        compiler.allow(1);
        let module = put(folder.path());
        let service = compiler.of(Service::builder(Runtime::Usher).module(&module).arg("--watch")).start();
        let watched = Self { service, compiler, folder, contents: 1 };
        watched.looked_at();
        watched
    }

    fn plain() -> Self {
        let watched = Self::start(|folder| {
            fs::write(folder.join("module"), module(0)).unwrap();
            folder.join("module")
        });
        watched.compiler.allow(100);
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn begun(&self) -> usize {
        self.service.log().matches(": reloading ").count()
    }

    fn reloaded(&self) -> usize {
        self.service.log().matches("usher: reloaded in ").count()
    }

    /// Another content.
    fn another(&mut self) -> Vec<u8> {
        self.contents += 1;
        module(self.contents - 1)
    }

    /// Asserts that what is done has it reload once and not more: one that follows is the second.
    fn once(&mut self, what: &str, replace: impl FnOnce(&Self, Vec<u8>)) {
        let before = self.reloaded();
        let content = self.another();
        replace(self, content);
        eventually(what, || (self.reloaded() == before + 1).then_some(()));
        assert_eq!(self.begun(), self.reloaded(), "{what}: {}", self.service.log());
    }

    /// Bytes that usher has read so far.
    fn read(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.service.pid())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// Waits until usher has looked at the module once more than for its start.
    fn looked_at(&self) {
        let twice = 2 * module(0).len() as u64;
        eventually("the module is looked at", || (self.read() >= twice).then_some(()));
    }

    /// Asserts that what is done has it read the module again and not reload.
    fn never(&self, what: &str, replace: impl FnOnce(&Self)) {
        let (read, begun) = (self.read(), self.begun());
        replace(self);
        eventually(what, || (self.read() >= read + module(0).len() as u64).then_some(()));
        assert_eq!(self.begun(), begun, "{what}");
    }
}

fn rename_over(watched: &Watched, content: &[u8]) {
    fs::write(watched.path("new"), content).unwrap();
    fs::rename(watched.path("new"), watched.path("module")).unwrap();
}

#[test]
fn however_a_file_is_replaced_it_is_reloaded_once() {
    let mut watched = Watched::plain();
    watched.once("renamed over", |it, content| rename_over(it, &content));
    watched.once("written in place", |it, content| fs::write(it.path("module"), content).unwrap());
    watched.once("deleted and made", |it, content| {
        fs::remove_file(it.path("module")).unwrap();
        fs::write(it.path("module"), content).unwrap();
    });
    watched.once("deleted, missed, and made", |it, content| {
        fs::remove_file(it.path("module")).unwrap();
        let reply = it.service.ask_usher("GET", "/livez");
        assert_eq!(reply.status, 200);
        fs::write(it.path("module"), content).unwrap();
    });
    watched.once("written in pieces", |it, content| {
        let mut file = File::create(it.path("module")).unwrap();
        content.chunks(100_000).for_each(|piece| file.write_all(piece).unwrap());
    });
    watched.once("a link to it", |it, content| {
        fs::write(it.path("elsewhere"), content).unwrap();
        fs::remove_file(it.path("module")).unwrap();
        symlink("elsewhere", it.path("module")).unwrap();
    });
    watched.once("where the link leads", |it, content| fs::write(it.path("elsewhere"), content).unwrap());
    // What came last serves, of each one generation.
    let worker = &watched.service.ready_workers(1)[0];
    assert_eq!(worker.generation, 8);
    assert_eq!(watched.compiler.compilations(), 8);
}

#[test]
fn a_volume_that_kubernetes_updates_is_reloaded_once() {
    let put = |folder: &Path, version: &str, content: &[u8]| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("module"), content).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let mut watched = Watched::start(|folder| {
        put(folder, "..1", &module(0));
        symlink("..data/module", folder.join("module")).unwrap();
        folder.join("module")
    });
    watched.compiler.allow(100);
    for version in ["..2", "..3"] {
        watched.once("the volume is updated", |it, content| put(it.folder.path(), version, &content));
    }
    watched.never("with the same", |it| put(it.folder.path(), "..4", &module(2)));
    watched.once("and with another", |it, content| put(it.folder.path(), "..5", &content));
}

#[test]
fn what_is_the_same_is_not_reloaded() {
    let mut watched = Watched::plain();
    watched.never("touched", |it| {
        File::options().write(true).open(it.path("module")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    });
    watched.never("the same content in another file", |it| rename_over(it, &module(0)));
    watched.never("the same content written again", |it| fs::write(it.path("module"), module(0)).unwrap());
    watched.never("deleted and made again", |it| {
        fs::remove_file(it.path("module")).unwrap();
        fs::write(it.path("module"), module(0)).unwrap();
    });
    watched.once("another one", |it, content| rename_over(it, &content));
    // By a signal it is, and then it is not seen as new.
    watched.service.ask_usher("POST", "/reload").expect(200);
    watched.never("touched", |it| {
        File::options().write(true).open(it.path("module")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    });
    assert_eq!(watched.service.ready_workers(1)[0].generation, 3);
}

#[test]
fn what_is_broken_is_told_once_and_the_rest_of_it_is_reloaded() {
    let watched = Watched::plain();
    let before = watched.service.ready_workers(1);
    let content = module(1);
    let (half, rest) = content.split_at(content.len() / 2);
    let mut file = File::create(watched.path("module")).unwrap();
    file.write_all(half).unwrap();
    eventually("it is told", || watched.service.log().contains("not reloaded: ").then_some(()));
    let read = watched.read();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    eventually("it is read again", || (watched.read() >= read + half.len() as u64).then_some(()));
    assert_eq!(watched.service.workers(), before);
    file.write_all(rest).unwrap();
    eventually("it reloads", || (watched.reloaded() == 1).then_some(()));
    let log = watched.service.log();
    assert_eq!(log.matches("no whole WebAssembly module").count(), 1, "{log}");
    assert_eq!(watched.begun(), 2, "{log}");
}

#[test]
fn changes_while_it_compiles_are_one_more_reload_of_the_last() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("module"), module(0)).unwrap();
        folder.join("module")
    });
    let compiles = |watched: &Watched, count: usize| {
        eventually("it compiles", || (watched.compiler.compilations() == count).then_some(()));
    };
    rename_over(&watched, &module(1));
    compiles(&watched, 2);
    watched.never("another one, meanwhile", |it| rename_over(it, &module(2)));
    watched.never("and another one", |it| rename_over(it, &module(3)));
    watched.compiler.allow(2);
    eventually("both are reloaded", || (watched.reloaded() == 2).then_some(()));
    assert_eq!(watched.compiler.compilations(), 3, "the one between is never compiled");

    watched.contents = 5;
    rename_over(&watched, &module(4));
    compiles(&watched, 4);
    watched.never("another one and back", |it| rename_over(it, &module(3)));
    watched.never("to what is compiled", |it| rename_over(it, &module(4)));
    watched.compiler.allow(1);
    eventually("it is reloaded", || (watched.reloaded() == 3).then_some(()));
    watched.compiler.allow(1);
    watched.once("and nothing but the next", |it, content| rename_over(it, &content));
}
