//! usher as whoever runs it meets it: what it prints, what it refuses, what the guest sees.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Builder, Database, Failed, Runtime, Service, artifacts, eventually, make_module};
use rustix::process::Signal;
use tempfile::TempDir;

fn usher() -> Builder {
    Service::builder(Runtime::Usher)
}

/// Asserts that usher ended with that code and said all of that.
fn assert_refused(failed: &Failed, code: i32, words: &[&str]) {
    assert_eq!(failed.status.code(), Some(code), "{failed:?}");
    for word in words {
        assert!(failed.stderr.contains(word), "{word:?} is missing: {}", failed.stderr);
    }
}

/// Runs another command of usher.
fn command(arguments: &[&str]) -> Output {
    Command::new(artifacts::usher()).args(arguments).env("USHER_CACHE", artifacts::cache()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_says_what_it_serves_where_and_with_how_many_workers() {
    let mut service = usher().start();
    let said = service.stdout();
    for word in ["compiled ahead of time (WasmEdge 0.17", "store: embedded in ./data", "admin on http://127.0.0.1:"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("1 worker: only one can use the store"), "{said}");
    service.add_user("Ada", "ada@example.org");
    assert!(service.folder().join("data/users.redb").exists());
    // The code is native: it is mapped into the worker.
    let maps = fs::read_to_string(format!("/proc/{}/maps", service.workers()[0].pid)).unwrap();
    assert!(maps.contains(&artifacts::compiled().display().to_string()), "{maps}");

    service.signal(Signal::INT);
    assert_eq!(service.ended().code(), Some(0));
    let again = usher().folder(service.folder()).start();
    assert_eq!(again.get("/api/users/1").expect(200)["name"], "Ada");
}

#[test]
fn interpreting_is_said_loudly_and_happens_only_when_asked_for() {
    let service = usher().arg("--interpret").start();
    assert!(service.stdout().contains("interpreted: for trying out only"), "{}", service.stdout());
    service.assert_alive();
}

#[test]
fn flags_have_twins_in_the_environment_and_an_empty_one_is_none() {
    let service = usher().env("USHER_INTERPRET", 1).env("USHER_WORKERS", "").env("USHER_GENERIC", "no").start();
    assert!(service.stdout().contains("interpreted"), "{}", service.stdout());
    assert_refused(&usher().env("USHER_DRAIN", "soon").run(), 2, &["--drain", "10s"]);
    // What Kubernetes sets for a Service called `usher` is no flag.
    let service = usher().env("USHER_PORT", "tcp://10.0.0.1:8080").env("USHER_SERVICE_HOST", "10.0.0.1").start();
    service.assert_alive();
}

#[test]
fn compiled_code_can_be_served_and_has_the_same_settings() {
    let service = usher().module(&artifacts::compiled()).env("LOG_FORMAT", "json").start();
    assert_eq!(service.get("/api/users").status, 200);
    eventually("the setting was handed on", || service.log().starts_with('{').then_some(()));
    let failed = usher().module(&artifacts::compiled()).arg("--interpret").run();
    assert_refused(&failed, 2, &["--interpret", "portable module"]);
}

#[test]
fn more_workers_than_the_store_can_have_are_refused_with_the_reason() {
    let failed = usher().arg("--workers=2").run();
    assert_refused(&failed, 2, &["--workers 2", "only one worker can use the store", "embedded in ./data"]);
}

#[test]
fn a_shared_database_gets_a_worker_for_each_processor() {
    let database = Database::start();
    let service = usher().env("DATABASE_URL", database.url()).start();
    let processors = std::thread::available_parallelism().unwrap().get();
    service.ready_workers(processors);
    assert!(service.stdout().contains(&format!("{processors} worker")), "{}", service.stdout());
}

#[test]
fn the_admin_address_answers_for_the_workers() {
    let service = usher().start();
    for (path, body) in [("/livez", "OK\n"), ("/readyz", "OK\n")] {
        let reply = service.ask_usher("GET", path);
        assert_eq!((reply.status, reply.body.as_str()), (200, body), "{path}");
    }
    let row = &service.ask_usher("GET", "/workers").expect(200)[0];
    assert_eq!((&row["worker"], &row["state"], &row["restarts"]), (&0.into(), &"ready".into(), &0.into()));
    assert!(row["started"].as_str().unwrap().ends_with('Z'), "{row}");
    assert_eq!(service.ask_usher("GET", "/workers/0/replace").header("allow"), Some("POST"));
    assert_eq!(service.ask_usher("POST", "/workers/7/replace").status, 409);
    assert_eq!(service.ask_usher("GET", "/other").status, 404);
}

#[test]
fn health_is_that_of_the_service() {
    let mut database = Database::start();
    let service = usher().env("DATABASE_URL", database.url()).env("DATABASE_TIMEOUT", "500ms").start();
    let admin = service.admin().to_string();
    eventually("it is healthy", || command(&["health", "--admin", &admin]).status.success().then_some(()));
    database.stop();
    let output = command(&["health", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("database"), "{output:?}");
    drop(service);
    let output = command(&["health", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is it running"), "{output:?}");
}

#[test]
fn check_says_what_there_is_and_what_is_wrong() {
    let module = artifacts::module().display().to_string();
    let output = command(&["check", &module]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    for word in ["WasmEdge", "0.17", "usher's own", "extensions", "cache", "workers", "open files", "portable"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let output = command(&["check", "/no/such.wasm", "--cache", "/proc/no"]);
    assert_eq!(output.status.code(), Some(1));
    let wrong = text(&output.stdout).lines().filter(|line| line.starts_with("WRONG")).count();
    assert_eq!(wrong, 2, "{output:?}");
}

#[test]
fn wrong_arguments_are_refused_before_anything_starts() {
    for (argument, words) in [
        ("--workers=0", &["--workers"][..]),
        ("--listen=localhost", &["--listen"]),
        ("--drain=soon", &["--drain", "10s"]),
        ("--memory=8GiB", &["--memory", "4GiB"]),
        ("--no-such-flag", &["--no-such-flag"]),
        ("--user=no-such-user", &["no-such-user", "--user"]),
        ("--env=LISTEN_ADDR=127.0.0.1:1", &["LISTEN_ADDR", "--listen"]),
        ("--env=NOT_THERE", &["NOT_THERE=VALUE"]),
        ("--env-file=/no/file", &["/no/file"]),
        ("--open-files=99999999999", &["--open-files", "limit"]),
        ("--dir=missing", &["missing", "make it"]),
        ("--dir=a:b:c", &["[GUEST:]HOST[:ro]"]),
    ] {
        assert_refused(&usher().arg(argument).run(), 2, words);
    }
}

#[test]
fn a_setting_that_the_service_refuses_ends_it_without_another_try() {
    let failed = usher().env("IDLE_TIMEOUT", "soon").run();
    assert_refused(&failed, 2, &["IDLE_TIMEOUT"]);
    // What is said last is what people find.
    assert!(failed.stderr.trim_end().lines().next_back().unwrap().contains("IDLE_TIMEOUT"), "{}", failed.stderr);
    assert_eq!(failed.stderr.matches("the configuration is wrong").count(), 1, "{}", failed.stderr);
}

#[test]
fn addresses_that_are_taken_are_named_with_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let failed = usher().arg(&format!("{flag}={address}")).run();
        assert_refused(&failed, 2, &[flag, &address, "already in use"]);
    }
    // By another usher, too, whose sockets would share the address.
    let first = usher().start();
    let failed = usher().env("LISTEN_ADDR", first.address()).run();
    assert_refused(&failed, 2, &["already in use"]);
}

#[test]
fn what_is_no_module_for_this_wasmedge_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut universal = fs::read(artifacts::module()).unwrap();
    universal.extend(b"\0\x0a\x08wasmedge\0");
    for (path, code, words) in [
        (folder.path().join("absent.wasm"), 2, &["absent.wasm", "cargo xtask build"][..]),
        (file("script.wasm", b"#!/bin/sh\n"), 2, &["script.wasm", "no WebAssembly module"]),
        (file("universal.wasm", &universal), 2, &["universal.wasm", "silently", "portable module"]),
        (file("cut.wasm", &fs::read(artifacts::module()).unwrap()[..5000]), 2, &["cut.wasm", "no whole"]),
        (artifacts::oldest_compiled(), 1, &["WasmEdge does not take"]),
        (file("damaged.so", b"\x7fELF"), 1, &["damaged.so", "WasmEdge does not take"]),
    ] {
        assert_refused(&usher().module(&path).run(), code, words);
    }
}

#[test]
fn a_module_that_crashes_at_its_start_is_tried_again_and_then_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let module = make_module("crashes", folder.path());
    let cache = folder.path().join("cache").display().to_string();
    for how in ["--interpret", "--opt=0"] {
        let failed = usher().module(&module).arg(how).arg(&format!("--cache={cache}")).run();
        assert_refused(&failed, 1, &["giving up", "5 times in a row", "these are my last words"]);
        assert_eq!(failed.stderr.matches("these are my last words").count(), 5, "{}", failed.stderr);
    }
}

/// What a guest sees of its environment.
fn environment(builder: Builder, folder: &TempDir) -> Vec<String> {
    let module = make_module("tells_environment", folder.path());
    let failed = builder.module(&module).arg("--interpret").run();
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    let lines = failed.stderr.split(['\0', '\n']).filter(|line| line.contains('=') && !line.contains(' '));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_guest_sees_no_variables_but_those_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings");
    fs::write(&file, "FROM_FILE=1\nBOTH=file\n").unwrap();
    let builder = usher()
        .env("SECRET", "s3cret")
        .env("HANDED_ON", "yes")
        // A setting of the service, but not of this module.
        .env("DATABASE_URL", "mysql://x")
        .arg("--env=HANDED_ON")
        .arg("--env=BOTH=flag")
        .arg("--open-files=100")
        .arg(&format!("--env-file={}", file.display()));
    let told = [
        "ADMIN_STDOUT=1",
        "BOTH=flag",
        "DRAIN_TIMEOUT=10000ms",
        "FREE_DESCRIPTORS=91",
        "FROM_FILE=1",
        "HANDED_ON=yes",
        "LISTEN_STDIN=1",
        "WORKER=0",
    ];
    assert_eq!(environment(builder, &folder), told);
}

#[test]
fn a_guest_reads_and_writes_in_its_folders_only() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    fs::create_dir(&world).unwrap();
    fs::write(folder.path().join("outside"), "mysql://app:hunter2@db/users").unwrap();
    let outside = folder.path().join("outside").display().to_string();
    for name in ["../outside", "/etc/hostname", &outside] {
        let failed = usher().folder(&world).env("DATABASE_URL_FILE", name).run();
        assert_refused(&failed, 2, &["DATABASE_URL_FILE", "cannot be read"]);
        assert!(!failed.stderr.contains("hunter2"));
    }
    // Where it may only read, it does not write.
    let empty = world.join("empty");
    fs::create_dir(&empty).unwrap();
    let failed = usher().folder(&world).arg("--dir=data:empty:ro").run();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("cannot use"), "{failed:?}");
    assert_eq!(fs::read_dir(world.join("data")).unwrap().count(), 0);
    // And with the folder granted it is read.
    fs::write(world.join("data/url"), "mysql://app:hunter2@127.0.0.1:1/users").unwrap();
    let service = usher().folder(&world).arg("--dir=data:data:ro").env("DATABASE_URL_FILE", "data/url").start();
    service.assert_alive();
}

/// A user without rights of its own, who is everywhere; its number, too.
const NOBODY: (&str, u32) = ("nobody", 65534);

/// Whether usher can be told to become another user: by root only, and where that user can reach it.
fn can_become_nobody() -> bool {
    let engine = artifacts::usher().with_file_name("usher-engine");
    let reaches = rustix::process::geteuid().is_root()
        && Command::new(engine).arg("about").uid(NOBODY.1).gid(NOBODY.1).output().is_ok_and(|it| it.status.success());
    if !reaches {
        println!("not tried: this needs root, and a checkout that `nobody` can read");
    }
    reaches
}

/// A folder that everybody can use, with the compiled module in it, which needs no cache.
fn public_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("usher").tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let module = folder.path().join("service.so");
    fs::copy(artifacts::compiled(), &module).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o644)).unwrap();
    (folder, module)
}

#[test]
fn root_is_given_up_for_another_user_and_no_way_back_is_left() {
    if !can_become_nobody() {
        return;
    }
    let (folder, module) = public_folder();
    let service = usher().folder(folder.path()).module(&module).arg("--user=nobody").start();
    assert_eq!(service.add_user("Ada", "ada@example.org")["id"], 1);
    let pids = service.workers().into_iter().map(|worker| worker.pid).chain([i32::try_from(service.pid()).unwrap()]);
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert!(!line("Uid:").split_whitespace().any(|uid| uid == "0"), "{status}");
        assert_eq!((line("NoNewPrivs:").as_str(), line("CapEff:").as_str()), ("1", "0000000000000000"));
    }
    let owner = fs::metadata(folder.path().join("data/users.redb")).unwrap().uid();
    assert_eq!(owner, NOBODY.1);
}

#[test]
fn a_folder_that_the_user_may_not_use_is_named() {
    if !can_become_nobody() {
        return;
    }
    let (folder, module) = public_folder();
    fs::create_dir(folder.path().join("private")).unwrap();
    let failed = usher().folder(folder.path()).module(&module).arg("--user=nobody").arg("--dir=data:private").run();
    assert_refused(&failed, 2, &["private", "change its owner"]);
}

#[test]
fn an_engine_that_is_missing_or_finds_no_wasmedge_is_told_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("usher");
    fs::copy(artifacts::usher(), &copy).unwrap();
    let run = || {
        let module = artifacts::module().display().to_string();
        let arguments = ["serve", &module, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"];
        Command::new(&copy).args(arguments).current_dir(&folder).output().unwrap()
    };
    let output = run();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("usher-engine is missing"), "{output:?}");

    let real = artifacts::usher().with_file_name("usher-engine");
    // One with the oldest library, and one without any.
    let oldest = artifacts::oldest_wasmedge().parent().and_then(Path::parent).unwrap().join("lib/libwasmedge.so.0");
    let engines = [
        format!("#!/bin/sh\nexec env LD_PRELOAD={} {} \"$@\"\n", oldest.display(), real.display()),
        "#!/bin/sh\necho 'error while loading shared libraries: libwasmedge.so.0' >&2; exit 127\n".to_owned(),
    ];
    for engine in engines {
        let place = folder.path().join("usher-engine");
        fs::write(&place, &engine).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        let output = run();
        assert_eq!(output.status.code(), Some(1), "{engine}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("libwasmedge") && said.contains("cargo xtask setup"), "{engine}: {said}");
    }
}
