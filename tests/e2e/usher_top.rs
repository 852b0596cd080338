//! `usher top`: what it shows of workers, in lines and on a terminal, and how it ends.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};

use harness::{Connections, Lines, Load, Runtime, Service, artifacts, children, eventually, two_workers};
use rustix::process::{Pid, Signal, kill_process};

/// The control sequences around what is drawn.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const CLEAR: &str = "\x1b[H\x1b[J";

fn top(admin: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(artifacts::usher());
    command.args(["top", "--admin", &admin.to_string()]).args(arguments);
    command
}

/// A program that runs until it is told to end.
struct Running {
    child: Child,
    out: Lines,
    log: Lines,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, log) = (Lines::follow(child.stdout.take().unwrap()), Lines::follow(child.stderr.take().unwrap()));
        Self { child, out, log }
    }

    /// Its exit code, and what it wrote.
    fn ended(&mut self) -> (Option<i32>, String, String) {
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        (status.code(), self.out.finished(), self.log.finished())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The lines below the head, each as its cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("TIME"));
    lines.map(|line| line.split_whitespace().collect()).collect()
}

/// The index of a column.
fn column(text: &str, name: &str) -> usize {
    let names = text.lines().find(|line| line.starts_with("TIME")).unwrap();
    names.split_whitespace().position(|column| column == name).unwrap()
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap_or_else(|_| panic!("{cell:?} is no number"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that it ended with that code and said all of that.
fn assert_failed(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for word in words {
        assert!(text(&output.stderr).contains(word), "{word:?} is missing: {output:?}");
    }
}

#[test]
fn its_lines_are_those_of_the_workers_and_add_up() {
    let (service, _database) = two_workers();
    let load = Load::start(service.address(), 8, Connections::Kept);
    load.answers(100);
    let output = top(service.admin(), &["--interval=300ms", "--count=2"]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let title = format!("# usher {} on {}, admin on {}", env!("CARGO_PKG_VERSION"), service.address(), service.admin());
    assert!(said.starts_with(&title), "{said}");
    let rows = rows(&said);
    assert_eq!(rows.len(), 6, "{said}");
    let cell = |name: &str| {
        let column = column(&said, name);
        move |row: &Vec<&str>| row[column].to_owned()
    };
    let names: Vec<String> = rows.iter().map(cell("WORKER")).collect();
    assert_eq!(names, ["all", "0", "1", "all", "0", "1"], "{said}");
    let workers = service.workers();
    for interval in rows.chunks(3) {
        let [all, first, second] = interval else { panic!("{said}") };
        // Each is rounded.
        let rate = |row: &Vec<&str>| number(&cell("REQ/S")(row));
        assert!(rate(all) > 0.0 && (rate(first) + rate(second) - rate(all)).abs() < 0.2, "{said}");
        assert_eq!((cell("STATE")(all), cell("5XX")(all), cell("CONNS")(all)), ("2/2".into(), "0%".into(), "8".into()));
        for (row, worker) in [(first, &workers[0]), (second, &workers[1])] {
            assert_eq!((cell("PID")(row), cell("STATE")(row)), (worker.pid.to_string(), "ready".into()));
            assert_eq!((cell("RESTARTS")(row), cell("GEN")(row)), ("0".into(), "1".into()));
            assert!(number(cell("MEMORY")(row).trim_end_matches('M')) > 0.1, "{said}");
        }
        assert!(["MEAN", "P99"].iter().all(|name| cell(name)(all).ends_with('s')), "{said}");
    }
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");
    let stats = service.ask_usher("GET", "/stats").expect(200);
    let count = |requests: &serde_json::Value| requests["count"].as_u64().unwrap();
    let workers: u64 = stats["workers"].as_array().unwrap().iter().map(|worker| count(&worker["requests"])).sum();
    assert_eq!((count(&stats["requests"]), workers), (tally.answered as u64, tally.answered as u64), "{stats}");
}

#[test]
fn without_requests_there_are_no_latencies() {
    let service = Service::builder(Runtime::Usher).start();
    let output = top(service.admin(), &[]).env("USHER_TOP_INTERVAL", "100ms").env("USHER_TOP_COUNT", "1").output();
    let said = text(&output.unwrap().stdout);
    let rows = rows(&said);
    assert_eq!(rows.len(), 2, "{said}");
    for row in rows {
        let cells = ["REQ/S", "MEAN", "P99", "5XX"].map(|name| row[column(&said, name)]);
        assert_eq!(cells, ["0.0", "-", "-", "-"], "{said}");
    }
}

#[test]
fn a_worker_that_is_killed_is_shown_as_restarted_and_counts_anew() {
    let (service, _database) = two_workers();
    let load = Load::start(service.address(), 4, Connections::Fresh);
    load.answers(200);
    let mut top = Running::start(&mut top(service.admin(), &["--interval=100ms"]));
    let lines_of = |said: &str, name: &str| -> Vec<Vec<String>> {
        let rows = rows(said).into_iter().filter(|row| row.len() == 14 && row[1] == name);
        rows.map(|row| row.into_iter().map(str::to_owned).collect()).collect()
    };
    eventually("a line is shown", || (!lines_of(&top.out.text(), "0").is_empty()).then_some(()));
    signal(service.workers()[0].pid, Signal::KILL);
    let restarts = |line: &Vec<String>| line[column(&top.out.text(), "RESTARTS")].clone();
    eventually("the new one serves, and is shown", || {
        let said = top.out.text();
        let serves = |line: &Vec<String>| restarts(line) == "1" && line[column(&said, "MEAN")].ends_with('s');
        lines_of(&said, "0").iter().any(serves).then_some(())
    });
    assert_eq!(lines_of(&top.out.text(), "all").last().map(restarts), Some("1".to_owned()));
    signal(top.child.id().cast_signed(), Signal::INT);
    let (code, said, log) = top.ended();
    assert_eq!((code, log.as_str()), (Some(0), ""));
    let negative = |cell: &str| cell.strip_prefix('-').is_some_and(|rest| !rest.is_empty());
    assert!(!rows(&said).concat().into_iter().any(negative) && !said.contains("NaN"), "{said}");
    load.finish();
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let mut service = Service::builder(Runtime::Usher).start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_failed(&top(nobody, &[]).output().unwrap(), 1, &["nothing answers at", "is it running"]);
    let other = top(service.address(), &[]).output().unwrap();
    assert_failed(&other, 1, &["is not the admin address", "404", "give --admin"]);
    assert_failed(&top(nobody, &["--interval=99ms"]).output().unwrap(), 2, &["--interval", "100ms"]);
    assert_failed(&top(nobody, &["--count=0"]).output().unwrap(), 2, &["--count"]);

    let mut top = Running::start(&mut top(service.admin(), &["--interval=100ms"]));
    eventually("a line is shown", || (!rows(&top.out.text()).is_empty()).then_some(()));
    service.kill();
    let (code, _, log) = top.ended();
    assert!(code == Some(1) && log.contains("usher went away") && log.contains("is it running"), "{code:?} {log}");
}

#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    let service = Service::builder(Runtime::Usher).start();
    let line = format!("{} top --admin {} --interval 100ms | head -n 3", artifacts::usher().display(), service.admin());
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(text(&output.stdout).lines().count(), 3, "{output:?}");
}

/// Runs a command line on a terminal of that size; what it draws is its output.
fn on_terminal(rows: u16, columns: u16, line: &str) -> Running {
    let line = format!("stty rows {rows} cols {columns}; exec {line}");
    Running::start(Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]))
}

/// Of the program that the terminal is for.
fn pid_on(terminal: &Running) -> i32 {
    eventually("the program runs", || {
        let children = children(terminal.child.id());
        children.iter().find(|(_, title)| title == "usher").map(|(pid, _)| *pid)
    })
}

#[test]
fn a_terminal_is_drawn_on_over_a_restart_and_left_as_it_was() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = || Service::builder(Runtime::Usher).arg(&format!("--admin={address}")).start();
    let mut service = start();
    let program = artifacts::usher();
    let mut terminal = on_terminal(3, 60, &format!("{} top --admin {address} --interval 100ms", program.display()));
    // Whatever follows one that is drawn shows that it is complete.
    let drawn = |picture: &str| terminal.out.text().matches(&format!("{CLEAR}{picture}")).count();
    eventually("usher is shown", || (drawn("usher 0") > 1).then_some(()));
    service.kill();
    eventually("it is said that usher is away", || (drawn("cannot ask usher at") > 1).then_some(()));
    let before = drawn("usher 0");
    let _service = start();
    eventually("usher is shown again", || (drawn("usher 0") > before + 1).then_some(()));
    signal(pid_on(&terminal), Signal::INT);
    let (code, said, _) = terminal.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(ENTER) && said.trim_end().ends_with(LEAVE), "{said:?}");
    let inside = said.replace(ENTER, "").replace(LEAVE, "");
    for picture in inside.split(CLEAR).filter(|picture| picture.starts_with("usher 0")) {
        let lines: Vec<&str> = picture.trim_end_matches("\r\n").split("\r\n").collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= 60), "{lines:?}");
        assert!(lines[1].starts_with("WORKER") && lines[2].trim_start().starts_with("all"), "{lines:?}");
    }
}

#[test]
fn what_was_drawn_last_stays_when_enough_was_seen() {
    let service = Service::builder(Runtime::Usher).start();
    let program = artifacts::usher();
    let line = format!("{} top --admin {} --interval 100ms --count 1", program.display(), service.admin());
    let (code, said, _) = on_terminal(24, 120, &line).ended();
    let (_, after) = said.split_once(LEAVE).unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(code, Some(0), "{said:?}");
    let lines: Vec<&str> = after.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("usher ") && lines[3].contains(" ready "), "{lines:?}");
    assert!(lines[2].contains(" 0.0 "), "it waited for an interval: {lines:?}");
}
