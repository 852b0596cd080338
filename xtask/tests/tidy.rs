//! The house rules of ARCHITECTURE.md, as scans of the source. Each rule takes a path and a text and
//! returns what offends, so that each also has a test that it can fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A function that does not fit on a screen does more than one thing.
const MAX_FUNCTION_LINES: usize = 70;

/// Where the guest's source lies.
const SERVICE: &str = "service/src";

/// Where the host's source lies.
const HOST: &str = "host/src";

/// Where the plugin's source lies.
const PLUGIN: [&str; 3] = ["plugin/abi/src", "plugin/lite/src", "plugin/tensorflow-lite/src"];

/// What is larger is no source.
const MAX_TRACKED_BYTES: u64 = 1_000_000;

// ---- The rules ----

fn hyper_only_in_the_server(path: &str, text: &str) -> Vec<String> {
    let allowed = under(path, &["server.rs", "server/"]);
    unless(allowed, path, text, "hyper only in service/src/server", |code| has_word(code, "hyper"))
}

fn tokio_only_at_the_edges(path: &str, text: &str) -> Vec<String> {
    let edges = ["server.rs", "server/", "main.rs", "lib.rs", "resolver/", "store/mysql/", "inference/queue.rs"];
    let rule = "tokio only in server, main.rs, lib.rs, resolver, store/mysql and inference/queue.rs";
    unless(under(path, &edges), path, text, rule, |code| has_word(code, "tokio"))
}

fn databases_only_in_the_store(path: &str, text: &str) -> Vec<String> {
    let sql = ["SELECT ", "INSERT INTO", "DELETE FROM", "CREATE TABLE", "ALTER TABLE"];
    let rule = "SQL and redb only in service/src/store";
    unless(under(path, &["store/"]), path, text, rule, |code| {
        has_word(code, "redb") || sql.iter().any(|words| code.contains(words))
    })
}

fn environment_only_in_config(path: &str, text: &str) -> Vec<String> {
    let rule = "std::env only in service/src/config.rs";
    unless(under(path, &["config.rs"]), path, text, rule, |code| {
        code.contains("std::env") || code.contains("env::var") || code.contains("env::args")
    })
}

fn what_counts_only_in_telemetry(path: &str, text: &str) -> Vec<String> {
    let rule = "the metrics facade and what counts behind it only in service/src/telemetry/metrics.rs";
    unless(under(path, &["telemetry/metrics.rs"]), path, text, rule, |code| {
        code.contains("use ::metrics") || has_word(code, "prometheus") || has_word(code, "metrics_prometheus")
    })
}

fn the_extension_only_in_its_module(path: &str, text: &str) -> Vec<String> {
    let rule = "wasmedge_tensorflow only in service/src/inference/ext.rs";
    unless(under(path, &["inference/ext.rs"]), path, text, rule, |code| code.contains("wasmedge_tensorflow"))
}

fn wasmedge_only_in_the_engine(path: &str, text: &str) -> Vec<String> {
    let rule = "WasmEdge only in host/src/engine: the supervisor goes on whatever happens in it";
    unless(under(path, &["engine/"]), path, text, rule, |code| {
        has_word(code, "wasmedge_sdk") || has_word(code, "wasmedge_sys")
    })
}

fn c_interface_only_in_wasi(path: &str, text: &str) -> Vec<String> {
    let rule = "WasmEdge's C interface only in host/src/engine/wasi: the SDK everywhere else";
    unless(under(path, &["engine/wasi/"]), path, text, rule, |code| {
        code.contains("ffi::WasmEdge") || has_word(code, "wasmedge_sys")
    })
}

fn the_host_knows_no_users(path: &str, text: &str) -> Vec<String> {
    let rule = "the host serves any module and knows nothing of users";
    unless(false, path, text, rule, |code| has_word(code, "users"))
}

fn unsafe_code_has_two_places(path: &str, text: &str) -> Vec<String> {
    let allowed = under(path, &["plugin/abi/src/lib.rs", "plugin/lite/src/native.rs"]);
    let rule = "unsafe code of the plugin only in abi/src/lib.rs and lite/src/native.rs";
    // A function's name for C is no code.
    unless(allowed, path, text, rule, |code| has_word(code, "unsafe") && !code.contains("unsafe(no_mangle)"))
}

fn nothing_may_panic(path: &str, text: &str) -> Vec<String> {
    let ends_the_process =
        [".unwrap()", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!", "println!", "eprintln!"];
    let rule = "a panic ends the process, and println! panics on a closed pipe: return the error";
    unless(false, path, text, rule, |code| ends_the_process.iter().any(|call| code.contains(call)))
}

fn functions_fit_on_a_screen(path: &str, text: &str) -> Vec<String> {
    let code = code_lines(text);
    let mut found = Vec::new();
    for (start, (number, line)) in code.iter().enumerate() {
        if !is_function_head(line) {
            continue;
        }
        let length = body_length(&code[start..]);
        if length > MAX_FUNCTION_LINES {
            let rule = format!("a function has {length} lines, more than {MAX_FUNCTION_LINES}");
            found.push(offence(path, *number, &rule, line));
        }
    }
    found
}

fn tests_wait_for_events(path: &str, text: &str) -> Vec<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let polls = file.starts_with("harness") || file == "wait.rs" || path.contains("/harness/");
    let lines = text.lines().enumerate();
    let sleeping = lines.filter(|(_, line)| !polls && without_comment(line).contains("sleep("));
    sleeping
        .map(|(index, line)| offence(path, index + 1, "tests never sleep: poll with a deadline in harness.rs", line))
        .collect()
}

/// A claim whose test is gone is a claim without one. Tests are named as sentences, so that a name is told
/// from other code by its length.
fn named_tests_exist(path: &str, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let names = text.lines().enumerate().flat_map(|(number, line)| line.split('`').map(move |name| (number, name)));
    let missing = names.filter(|(_, name)| is_name_of_a_test(name) && !tests.contains(*name));
    missing.map(|(number, name)| offence(path, number + 1, "tests that are named exist", name)).collect()
}

fn no_registry_is_named(path: &str, text: &str, hosts: &BTreeSet<String>) -> Vec<String> {
    let lines = text.lines().enumerate();
    // The line itself is left out: the finding would repeat the name.
    lines
        .filter(|(_, line)| hosts.iter().any(|host| line.contains(host.as_str())))
        .map(|(index, _)| offence(path, index + 1, "the host of a package registry is named", ""))
        .collect()
}

// ---- The rules on this checkout ----

#[test]
fn hyper_stays_in_the_server() {
    check(SERVICE, hyper_only_in_the_server);
}

#[test]
fn tokio_stays_at_the_edges() {
    check(SERVICE, tokio_only_at_the_edges);
}

#[test]
fn databases_stay_in_the_store() {
    check(SERVICE, databases_only_in_the_store);
}

#[test]
fn the_environment_is_read_in_config() {
    check(SERVICE, environment_only_in_config);
}

#[test]
fn counting_stays_in_telemetry() {
    check(SERVICE, what_counts_only_in_telemetry);
}

#[test]
fn the_extension_stays_in_its_module() {
    check(SERVICE, the_extension_only_in_its_module);
}

#[test]
fn the_service_does_not_panic() {
    check(SERVICE, nothing_may_panic);
}

#[test]
fn the_services_functions_are_short() {
    check(SERVICE, functions_fit_on_a_screen);
}

#[test]
fn wasmedge_stays_in_the_engine_and_its_c_interface_in_wasi() {
    check(HOST, wasmedge_only_in_the_engine);
    check(HOST, c_interface_only_in_wasi);
}

#[test]
fn the_host_serves_any_module() {
    check(HOST, the_host_knows_no_users);
}

#[test]
fn the_host_does_not_panic_and_its_functions_are_short() {
    check(HOST, nothing_may_panic);
    check(HOST, functions_fit_on_a_screen);
}

#[test]
fn the_plugin_does_not_panic_is_short_and_has_its_unsafe_code_in_two_files() {
    for place in PLUGIN {
        check(place, nothing_may_panic);
        check(place, functions_fit_on_a_screen);
        check(place, unsafe_code_has_two_places);
    }
}

#[test]
fn tests_do_not_sleep() {
    let sources = rust_files(&root().join("tests"));
    report(sources.iter().flat_map(|(path, text)| tests_wait_for_events(path, text)));
}

#[test]
fn each_test_that_the_security_page_names_exists() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    assert!(text.split('`').filter(|name| is_name_of_a_test(name)).count() > 10);
    report(named_tests_exist("SECURITY.md", &text, &functions()).into_iter());
}

#[test]
fn no_tracked_file_names_a_registry() {
    let hosts = registry_hosts();
    let files = tracked_files();
    let texts = files.iter().filter_map(|path| Some((path, fs::read_to_string(path).ok()?)));
    report(texts.flat_map(|(path, text)| no_registry_is_named(&shown(path), &text, &hosts)));
}

#[test]
fn no_large_file_is_tracked() {
    let files = tracked_files();
    let large = files
        .iter()
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > MAX_TRACKED_BYTES));
    report(large.map(|path| format!("{}: larger than {MAX_TRACKED_BYTES} bytes", shown(path))));
}

// ---- That each rule can fail ----

#[test]
fn each_rule_finds_its_offence_and_allows_its_place() {
    type Rule = fn(&str, &str) -> Vec<String>;
    let cases: [(Rule, &str, &str); 8] = [
        (wasmedge_only_in_the_engine, "use wasmedge_sdk::Vm;", "engine/worker.rs"),
        (c_interface_only_in_wasi, "ffi::WasmEdge_ValueGenI32(0)", "engine/wasi/mod.rs"),
        (hyper_only_in_the_server, "use hyper::Body;", "server/http.rs"),
        (tokio_only_at_the_edges, "tokio::spawn(work);", "lib.rs"),
        (databases_only_in_the_store, "let q = \"SELECT id\";", "store/mysql.rs"),
        (environment_only_in_config, "std::env::var(name)", "config.rs"),
        (what_counts_only_in_telemetry, "use prometheus::Registry;", "telemetry/metrics.rs"),
        (the_extension_only_in_its_module, "wasmedge_tensorflowlite", "inference/ext.rs"),
    ];
    for (rule, text, allowed) in cases {
        let found = rule("service/src/routes.rs", text);
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].starts_with("service/src/routes.rs:1: "), "{found:?}");
        assert!(rule(&format!("service/src/{allowed}"), text).is_empty(), "{text}");
    }
    assert_eq!(databases_only_in_the_store("service/src/a.rs", "redb::open()").len(), 1);
    let text = "#[unsafe(no_mangle)]\nunsafe { f() }\n";
    assert_eq!(unsafe_code_has_two_places("plugin/lite/src/session.rs", text).len(), 1);
    assert!(unsafe_code_has_two_places("plugin/lite/src/native.rs", text).is_empty());
}

#[test]
fn panics_are_found_in_code_but_not_in_tests_and_comments() {
    let path = "service/src/a.rs";
    for call in ["x.unwrap()", "x.expect(\"y\")", "panic!()", "todo!()", "println!(\"x\")"] {
        assert_eq!(nothing_may_panic(path, call).len(), 1, "{call}");
    }
    let fine = "// x.unwrap()\nlet a = b.unwrap_or(c);\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\n";
    assert!(nothing_may_panic(path, fine).is_empty());
    let after = format!("{fine}fn f() {{\n    panic!();\n}}\n");
    assert!(nothing_may_panic(path, &after)[0].starts_with("service/src/a.rs:8: "));
}

#[test]
fn a_single_test_item_hides_nothing_else() {
    let text = "#[cfg(test)]\nmod suite;\n\nx.unwrap();\n";
    assert_eq!(nothing_may_panic("service/src/a.rs", text).len(), 1);
    assert_eq!(test_modules(text), ["suite"]);
}

#[test]
fn long_functions_are_found() {
    let long = |lines: usize| {
        let body = "        work();\n".repeat(lines);
        format!("impl X {{\n    pub async fn f(\n        &self,\n    ) {{\n{body}    }}\n}}\n")
    };
    let path = "service/src/a.rs";
    let fitting = MAX_FUNCTION_LINES;
    assert!(functions_fit_on_a_screen(path, &long(fitting)).is_empty());
    let found = functions_fit_on_a_screen(path, &long(fitting + 1));
    assert!(found[0].starts_with("service/src/a.rs:2: "), "{found:?}");
    let declared = format!("trait T {{\n    fn f();\n}}\n{}", "const X: u8 = 1;\n".repeat(100));
    assert!(functions_fit_on_a_screen(path, &declared).is_empty());
}

#[test]
fn sleeping_tests_are_found_except_in_helpers() {
    let text = "fn f() {\n    thread::sleep(second);\n}\n";
    assert_eq!(tests_wait_for_events("tests/tests/users.rs", text).len(), 1);
    assert!(tests_wait_for_events("tests/src/harness.rs", text).is_empty());
    assert!(tests_wait_for_events("tests/src/wait.rs", text).is_empty());
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    let tests = BTreeSet::from(["a_guest_does_what_it_may".to_owned()]);
    let text = "| it is | `x.rs`: `a_guest_does_what_it_may` |\n| it is | `a_guest_does_what_it_wants` |";
    let found = named_tests_exist("SECURITY.md", text, &tests);
    assert!(found.len() == 1 && found[0].contains("wants"), "{found:?}");
}

#[test]
fn named_registries_are_found_and_not_repeated() {
    let hosts = BTreeSet::from(["mirror.example".to_owned()]);
    let found = no_registry_is_named("README.md", "a\nget http://mirror.example/debian", &hosts);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("README.md:2: ") && !found[0].contains("mirror.example"));
    assert_eq!(
        hosts_in("x http://u:p@mirror.example:80/d\nsparse+https://b.example/"),
        ["mirror.example", "b.example"]
    );
}

// ---- How the rules look at things ----

/// Applies a rule to every source file of the service that is not for tests alone.
fn check(place: &str, rule: fn(&str, &str) -> Vec<String>) {
    let sources = rust_files(&root().join(place));
    assert!(!sources.is_empty(), "{place} has no source files");
    let for_tests: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            test_modules(text).into_iter().map(move |name| format!("{folder}/{name}.rs"))
        })
        .collect();
    let shipped = sources.iter().filter(|(path, _)| !for_tests.contains(path));
    report(shipped.flat_map(|(path, text)| rule(path, text)));
}

fn report(found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "house rules are broken:\n{}", found.join("\n"));
}

fn offence(path: &str, number: usize, rule: &str, line: &str) -> String {
    format!("{path}:{number}: {rule}: {}", line.trim())
}

fn unless(allowed: bool, path: &str, text: &str, rule: &str, offends: impl Fn(&str) -> bool) -> Vec<String> {
    if allowed {
        return Vec::new();
    }
    let code = code_lines(text).into_iter();
    code.filter(|(_, line)| offends(line)).map(|(number, line)| offence(path, number, rule, line)).collect()
}

/// Whether a path of the service or the host is one of `places`, or in one that ends with a slash.
fn under(path: &str, places: &[&str]) -> bool {
    let inner = [SERVICE, HOST].iter().find_map(|source| path.strip_prefix(source)?.strip_prefix('/')).unwrap_or(path);
    places.iter().any(|place| inner == *place || (place.ends_with('/') && inner.starts_with(place)))
}

/// The numbered lines of a file that ship: comments and items for tests are left out.
///
/// Relies on rustfmt: an item ends at the brace with the indentation it began with.
fn code_lines(text: &str) -> Vec<(usize, &str)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push((index + 1, without_comment(line)));
            continue;
        }
        let end = format!("{}}}", indentation(line));
        let item = lines.by_ref().find(|(_, line)| !line.trim().starts_with("#["));
        if item.is_some_and(|(_, line)| !line.trim_end().ends_with([';', '}'])) {
            lines.by_ref().find(|(_, line)| *line == end);
        }
    }
    code
}

/// The modules in files of their own that a file declares for tests only.
fn test_modules(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
    pairs.filter_map(|pair| pair[1].trim().strip_suffix(';')?.split_once("mod ")).map(|(_, name)| name).collect()
}

fn without_comment(line: &str) -> &str {
    match line.find("//") {
        // "//" after a colon is an address in a string.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word))
}

fn is_name_of_a_test(text: &str) -> bool {
    text.matches('_').count() >= 4 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The names of all functions, tests among them.
fn functions() -> BTreeSet<String> {
    let sources = [SERVICE, HOST, "plugin", "tests"].iter().flat_map(|folder| rust_files(&root().join(folder)));
    let name = |line: &str| Some(line.trim_start().strip_prefix("fn ")?.split(['(', '<']).next()?.to_owned());
    sources.flat_map(|(_, text)| text.lines().filter_map(name).collect::<Vec<_>>()).collect()
}

fn is_function_head(line: &str) -> bool {
    let words = line.trim_start().split(' ');
    let mut words = words
        .skip_while(|word| word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\""].contains(word));
    words.next() == Some("fn")
}

/// How many lines lie between the braces of the function that begins with the first line.
fn body_length(code: &[(usize, &str)]) -> usize {
    let end = format!("{}}}", indentation(code[0].1));
    let ends = |line: &str| line.trim_end().ends_with(['{', '}', ';']);
    let Some(open) = code.iter().position(|(_, line)| ends(line)) else {
        return 0;
    };
    if !code[open].1.trim_end().ends_with('{') {
        return 0;
    }
    let body = &code[open + 1..];
    body.iter().position(|(_, line)| line.trim_end() == end).unwrap_or(body.len())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn rust_files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((shown(&path), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// None when this is no git checkout, as in an unpacked archive.
fn tracked_files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    let listed = git.arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    let Some(output) = listed.ok().filter(|output| output.status.success()) else {
        eprintln!("git lists no files here: nothing to check");
        return Vec::new();
    };
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    names.split_terminator('\0').map(|name| root().join(name)).collect()
}

/// The registries that this machine is configured to use, which are nobody else's business.
fn registry_hosts() -> BTreeSet<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI)"]);
    let apt = apt.output().map(|output| output.stdout).unwrap_or_default();
    let mut configured = String::from_utf8_lossy(&apt).into_owned();
    let home = std::env::home_dir().unwrap_or_default();
    let cargo = fs::read_to_string(home.join(".cargo/config.toml")).unwrap_or_default();
    let registries = cargo.lines().filter(|line| line.contains("registry") || line.contains("index"));
    registries.for_each(|line| configured.push_str(&format!("\n{line}")));
    let hosts = hosts_in(&configured).into_iter();
    // The public index is named in every Cargo.lock.
    hosts.filter(|host| *host != "github.com").map(str::to_owned).collect()
}

fn hosts_in(text: &str) -> Vec<&str> {
    let addresses = text.split("://").skip(1);
    addresses
        .filter_map(|rest| rest.split(['/', '"', ' ', '\n']).next())
        .map(|authority| authority.rsplit('@').next().unwrap_or(authority))
        .map(|host| host.split(':').next().unwrap_or(host))
        .filter(|host| !host.is_empty())
        .collect()
}
