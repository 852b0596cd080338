//! HTTP/1 itself, byte by byte: framing, connections, and clients that break the rules or off.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Builder, Raw, Runtime, Service, none_wrong, statuses, wire};
use rustix::net::sockopt::set_socket_linger;

const USER: &str = r#"{"name":"n","email":"n@x.org"}"#;
/// What nobody asked for, if user 1 is gone in the end.
const SMUGGLED: &str = "DELETE /api/users/1 HTTP/1.1\r\nHost: x\r\n\r\n";

on_every_runtime!(
    a_half_closed_client_gets_its_whole_answer,
    pipelined_requests_are_answered_in_order,
    bodies_of_any_size_among_pipelined_requests_end_where_they_say,
    a_connection_is_kept_until_one_side_says_otherwise,
    a_chunked_body_is_put_together_however_it_is_cut,
    a_client_that_asks_first_is_told_to_go_on_or_why_not,
    what_follows_too_large_a_body_is_never_a_request
);

fn aot() -> Builder {
    Service::builder(Runtime::Aot)
}

/// A service with one user.
fn with_a_user(builder: Builder) -> Service {
    let service = builder.start();
    service.add_user("Ada", "ada@example.org");
    service
}

fn users(service: &Service) -> usize {
    service.get("/api/users?page_size=100").expect(200)["users"].as_array().unwrap().len()
}

/// Sends bytes, ends our side, and gives the status codes of all that comes back.
fn answers(service: &Service, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut connection = service.connect();
    connection.send(&bytes).unwrap();
    connection.half_close().unwrap();
    let text = connection.rest().unwrap_or_else(|error| panic!("{error}: {}", bytes.as_ref().escape_ascii()));
    statuses(&text)
}

#[test]
fn a_request_has_exactly_one_valid_host_unless_it_need_not_have_any() {
    let service = Service::start();
    let get = "GET /api/health HTTP/1.1\r\n";
    let bad = [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHost: y\r\n",
        "Host: x\r\nhost: x\r\n",
        "Host: a b\r\n",
        "Host: x/y\r\n",
        "Host: http://x\r\n",
        "Host: x?y\r\n",
        "Host: x#y\r\n",
        "Host: user@x\r\n",
        "Host: x:http\r\n",
        "Host: x:80:80\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: \"x\"\r\n",
        "Host: <x>\r\n",
        "Host: x\\y\r\n",
        "Host: \u{e9}\r\n",
        "Host : x\r\n",
        " Host: x\r\n",
    ];
    none_wrong(bad, |host| {
        let status = service.connect().request(format!("{get}{host}\r\n")).unwrap().status;
        (status != 400).then(|| format!("{host:?}: {status}"))
    });
    for host in ["x", "X.example.org", "x:8080", "x:", "127.0.0.1:80", "[::1]", "[::1]:80", "a_b", "", " x\t"] {
        let reply = service.connect().request(format!("{get}Host: {host}\r\n\r\n")).unwrap();
        assert_eq!(reply.status, 200, "{host:?}: {reply:?}");
    }
    let others = [
        ("GET /api/health HTTP/1.0\r\n\r\n", 200),
        ("GET /api/health HTTP/1.0\r\nHost: x\r\n\r\n", 200),
        ("GET /api/health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET http://x/api/health HTTP/1.1\r\n\r\n", 200),
        ("GET http://x/api/health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET https://y:8443/api/health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET http://x/api/health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET http://x/api/health HTTP/1.0\r\n\r\n", 200),
    ];
    for (request, status) in others {
        assert_eq!(answers(&service, request), [status], "{request:?}");
    }
    service.assert_alive();
}

fn a_half_closed_client_gets_its_whole_answer(runtime: Runtime) {
    let service = Service::builder(runtime).start();
    for n in 0..100 {
        service.add_user(&"🦀".repeat(200), &format!("u{n}@x.org"));
    }
    for _ in 0..20 {
        let mut connection = service.connect();
        connection.send(wire::get("/api/users?page_size=100")).unwrap();
        connection.half_close().unwrap();
        let reply = connection.reply().unwrap();
        assert_eq!(reply.expect(200)["users"].as_array().unwrap().len(), 100);
        assert_eq!(connection.rest().unwrap(), "");
    }
    assert_eq!(answers(&service, wire::post(USER)), [201]);
    let chunked = format!("{:x}\r\n{USER}\r\n0\r\n\r\n", USER.len());
    assert_eq!(answers(&service, wire::post_framed(&["Transfer-Encoding: chunked"], chunked)), [409]);
    let several = [wire::get("/livez"), wire::post("{}"), wire::get("/api/users/1")].concat();
    assert_eq!(answers(&service, several), [200, 422, 200]);
    assert_eq!(answers(&service, "GET /livez HTTP/1.0\r\n\r\n"), [200]);
}

#[test]
fn a_client_that_ends_before_its_request_does_leaves_nothing_behind() {
    let service = with_a_user(aot());
    let whole = wire::post(USER);
    let chunked = wire::post_framed(&["Transfer-Encoding: chunked"], "5\r\n{\"nam\r\n19\r\ne");
    // In the request line, in the head, after it, in the body; in a chunk.
    let cut = [
        &whole[..1],
        &whole[..20],
        &whole[..40],
        &whole[..whole.len() - USER.len()],
        &whole[..whole.len() - 1],
        &chunked,
    ];
    for part in cut {
        for half_close in [false, true] {
            for _ in 0..20 {
                let mut connection = service.connect();
                connection.send(part).unwrap();
                if half_close {
                    connection.half_close().unwrap();
                    let statuses = statuses(&connection.rest().unwrap());
                    assert!(statuses.is_empty() || statuses == [400], "{statuses:?} {}", part.escape_ascii());
                }
            }
        }
    }
    service.at_rest();
    assert_eq!(users(&service), 1, "nobody sent a whole user");
    service.assert_alive();
}

#[test]
fn connections_that_are_reset_in_the_middle_of_a_request_do_no_harm() {
    harness::raise_descriptor_limit(4096);
    let service = with_a_user(aot());
    let whole = wire::post(USER);
    let connections: Vec<Raw> = (0..500)
        .map(|n| {
            let mut connection = service.connect();
            connection.send(&whole[..n % whole.len()]).unwrap();
            connection
        })
        .collect();
    for connection in &connections {
        // Closing a socket that does not linger resets the connection.
        set_socket_linger(connection.socket(), Some(Duration::ZERO)).unwrap();
    }
    drop(connections);
    service.at_rest();
    assert_eq!(users(&service), 1);
    service.assert_alive();
}

fn pipelined_requests_are_answered_in_order(runtime: Runtime) {
    let service = with_a_user(Service::builder(runtime));
    let requests = [
        wire::get("/livez"),
        wire::post(USER),
        wire::get("/api/users/2"),
        wire::request("HEAD", "/api/users/2", &[], ""),
        wire::get("/nowhere"),
        wire::request("DELETE", "/api/users/2", &[], ""),
        b"\r\n".to_vec(),
        wire::get("/api/users/2"),
    ];
    let whole = requests.concat();
    // In one write, and in as many as there are bytes.
    for size in [whole.len(), 1] {
        let service = with_a_user(Service::builder(runtime));
        let mut connection = service.connect();
        whole.chunks(size).for_each(|part| connection.send(part).unwrap());
        assert_eq!(connection.reply().unwrap().body, "OK");
        let user = connection.reply().unwrap().expect(201);
        assert_eq!(connection.reply().unwrap().expect(200), user);
        assert_eq!(connection.reply_head().unwrap().status, 200);
        assert_eq!(connection.reply().unwrap().problem(404).0, "no-such-resource");
        assert_eq!(connection.reply().unwrap().status, 204);
        assert_eq!(connection.reply().unwrap().problem(404).0, "no-such-user");
        connection.half_close().unwrap();
        assert_eq!(connection.rest().unwrap(), "");
    }
    assert_eq!(answers(&service, wire::get("/livez").repeat(1000)), [200; 1000]);
}

fn bodies_of_any_size_among_pipelined_requests_end_where_they_say(runtime: Runtime) {
    let service = Service::builder(runtime).start();
    // One that is no longer than its head, one that fills a read, one that takes many.
    let sizes = [30, 8192, 65_536];
    let requests = (0..12).flat_map(|n| {
        let user = wire::user(&format!("u{n}@x.org"));
        // Were a byte too few taken for the body, it would begin a request.
        let body = format!("{user}{}", "\n".repeat(sizes[n % 3].max(user.len()) - user.len()));
        [wire::post(body), wire::get("/livez"), wire::post("{}")]
    });
    let whole = requests.collect::<Vec<_>>().concat();
    for size in [whole.len(), 1000] {
        let mut connection = service.connect();
        let mut writing = connection.socket().try_clone().unwrap();
        thread::scope(|scope| {
            let whole = &whole;
            scope.spawn(move || whole.chunks(size).for_each(|part| writing.write_all(part).unwrap()));
            for n in 0..12 {
                let answers = [(); 3].map(|()| connection.reply().unwrap().status);
                let created = if size == 1000 { 409 } else { 201 };
                assert_eq!(answers, [created, 200, 422], "{runtime:?} {size} {n}");
            }
        });
    }
}

fn a_connection_is_kept_until_one_side_says_otherwise(runtime: Runtime) {
    let service = with_a_user(Service::builder(runtime));
    let mut connection = service.connect();
    for n in 0..200 {
        let (request, status) = match n % 4 {
            0 => (wire::get("/api/users/1"), 200),
            1 => (wire::get("/nowhere"), 404),
            2 => (wire::post("{"), 400),
            _ => (wire::request("OPTIONS", "/livez", &[], ""), 204),
        };
        let reply = connection.request(request).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (status, None), "{n}");
    }
    let closing = [
        wire::request("GET", "/livez", &[("Connection", "close")], ""),
        wire::request("GET", "/livez", &[("connection", "x, Close")], ""),
        b"GET /livez HTTP/1.0\r\n\r\n".to_vec(),
    ];
    for request in closing {
        let mut connection = service.connect();
        connection.send(&request).unwrap();
        // Whatever comes after it is not read.
        connection.send(SMUGGLED).unwrap();
        assert_eq!(connection.reply().unwrap().body, "OK");
        assert_eq!(connection.rest().unwrap(), "", "{}", request.escape_ascii());
    }
    let mut old = service.connect();
    for _ in 0..2 {
        let reply = old.request("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
    }
    assert_eq!(service.get("/api/users/1").status, 200);
}

fn a_chunked_body_is_put_together_however_it_is_cut(runtime: Runtime) {
    let service = Service::builder(runtime).start();
    let (a, b) = USER.split_at(7);
    let bodies = [
        format!("{:x}\r\n{USER}\r\n0\r\n\r\n", USER.len()),
        format!("{:X}\r\n{USER}\r\n0\r\n\r\n", USER.len()),
        format!("000000{:x}\r\n{USER}\r\n000\r\n\r\n", USER.len()),
        format!("{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len()),
        USER.chars().map(|c| format!("1\r\n{c}\r\n")).collect::<String>() + "0\r\n\r\n",
        format!("{:x};name\r\n{USER}\r\n0;last\r\n\r\n", USER.len()),
        format!("{:x};name=value;other=\"; \\\" 5\"\r\n{USER}\r\n0\r\n\r\n", USER.len()),
        format!("{:x}\r\n{USER}\r\n0\r\nTrailer: ignored\r\nContent-Length: 5\r\n\r\n", USER.len()),
    ];
    for (n, body) in bodies.iter().enumerate() {
        for encoding in ["chunked", "Chunked"] {
            let mut connection = service.connect();
            let request = wire::post_framed(&[&format!("Transfer-Encoding: {encoding}")], body);
            let reply = connection.request(request).unwrap();
            assert!(reply.status == 201 || (reply.status == 409 && users(&service) == 1), "{n}: {reply:?}");
            // Chunks end their connection, see `no_framing_lets_a_body_be_taken_for_a_request`.
            assert_eq!(reply.header("connection"), Some("close"), "{n}");
            assert_eq!(connection.rest().unwrap(), "", "{n}");
        }
    }
}

#[test]
fn a_chunked_body_that_breaks_the_rules_is_malformed_and_ends_the_connection() {
    let service = with_a_user(aot());
    let bodies = [
        "\r\n",
        "x\r\n",
        "g\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2 2\r\n{}\r\n0\r\n\r\n",
        "\"2\"\r\n{}\r\n0\r\n\r\n",
        ";x\r\n{}\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "10000000000000000\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "100000000000000002\r\n{}\r\n0\r\n\r\n",
        "2;x\0\r\n{}\r\n0\r\r\n",
        "2;a\nb\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\r\nX: y\rz\r\n",
    ];
    none_wrong(bodies, |body| {
        let request = [wire::post_framed(&["Transfer-Encoding: chunked"], body), SMUGGLED.into()].concat();
        let answers = answers(&service, request);
        (answers != [400]).then(|| format!("{body:?}: {answers:?}"))
    });
    none_wrong(["3\r\n{}", "2\r\n{}\r\n", "2\r\n{}\r\n0\r\n"], |cut_short| {
        let answers = answers(&service, wire::post_framed(&["Transfer-Encoding: chunked"], cut_short));
        (answers != [400]).then(|| format!("{cut_short:?}: {answers:?}"))
    });
    assert_eq!(service.get("/api/users/1").status, 200);
    assert_eq!(users(&service), 1);
}

#[test]
fn a_content_length_that_is_none_is_malformed_and_ends_the_connection() {
    let service = with_a_user(aot());
    let wrong: [&[&str]; 14] = [
        &["Content-Length: -1"],
        &["Content-Length: +2"],
        &["Content-Length: 0x2"],
        &["Content-Length: 2.0"],
        &["Content-Length: 2e0"],
        &["Content-Length: two"],
        &["Content-Length:"],
        &["Content-Length: 2 2"],
        &["Content-Length: 2, 3"],
        &["Content-Length: 2", "Content-Length: 3"],
        &["Content-Length: 44", "content-length: 2"],
        &["Content-Length: 18446744073709551616"],
        &["Content-Length: 18446744073709551618"],
        &["Content-Length : 2"],
    ];
    none_wrong(wrong, |headers| {
        let answers = answers(&service, wire::post_framed(headers, format!("{{}}{SMUGGLED}")));
        (answers != [400]).then(|| format!("{headers:?}: {answers:?}"))
    });
    for huge in ["18446744073709551615", "9223372036854775808", "65537"] {
        let request = wire::post_framed(&[&format!("Content-Length: {huge}")], format!("{{}}{SMUGGLED}"));
        let answers = answers(&service, request);
        // What no u64 holds, and a little less, is too large to hyper's parser already.
        let right = if huge == "65537" { &[413][..] } else { &[400, 413, 431] };
        assert!(answers.len() == 1 && right.contains(&answers[0]), "{huge}: {answers:?}");
    }
    for short in 1..USER.len() {
        let request = wire::post_framed(&[&format!("Content-Length: {}", USER.len())], &USER[..short]);
        assert_eq!(answers(&service, request), [400], "{short}");
    }
    assert_eq!(service.get("/api/users/1").status, 200);
    assert_eq!(users(&service), 1);
}

#[test]
fn no_framing_lets_a_body_be_taken_for_a_request() {
    let service = with_a_user(aot());
    let after = format!("0\r\n\r\n{SMUGGLED}");
    let within = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let encodings = [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: x, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding:\r\n chunked",
    ];
    none_wrong(encodings, |encoding| {
        let smuggles = |rest: &str, length_first: bool| {
            let length = format!("Content-Length: {}", rest.len());
            let headers = if length_first { [&*length, encoding] } else { [encoding, &*length] };
            // By its length all of `rest` is the body; whoever passed it on may have known only that.
            answers(&service, wire::post_framed(&headers, rest)).len() > 1
        };
        let ways = [(&after, false), (&after, true), (&within, false), (&within, true)];
        let count = ways.iter().filter(|(rest, length_first)| smuggles(rest, *length_first)).count();
        (count > 0).then(|| format!("{encoding:?}: in {count} of 4 ways"))
    });
    let old = format!("POST /api/users HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{after}");
    assert_eq!(answers(&service, old), [400]);
    assert_eq!(service.get("/api/users/1").status, 200);
}

#[test]
fn a_body_that_nobody_reads_is_not_the_next_request() {
    let service = with_a_user(aot());
    let requests = [
        ("GET", "/livez", 200),
        ("GET", "/api/users/1", 200),
        ("GET", "/nowhere", 404),
        ("BREW", "/api/users", 405),
        ("OPTIONS", "/api/users", 204),
        ("POST", "/api/users", 415),
        ("DELETE", "/api/users/2", 404),
    ];
    for (method, target, status) in requests {
        let request = wire::request(method, target, &[], SMUGGLED);
        let mut connection = service.connect();
        assert_eq!(connection.request(request).unwrap().status, status, "{method} {target}");
        // The connection goes on behind the body, or ends.
        connection.send(wire::get("/api/users/1")).unwrap();
        connection.half_close().unwrap();
        let next = statuses(&connection.rest().unwrap());
        assert!(next.is_empty() || next == [200], "{method} {target}: {next:?}");
        assert_eq!(service.get("/api/users/1").status, 200, "{method} {target}");
    }
}

fn a_client_that_asks_first_is_told_to_go_on_or_why_not(runtime: Runtime) {
    let service = with_a_user(Service::builder(runtime));
    let asking = |size: usize| format!("Content-Length: {size}\r\nExpect: 100-Continue");

    let mut connection = service.connect();
    let reply = connection.request(wire::post_framed(&[&asking(USER.len())], "")).unwrap();
    assert_eq!(reply.status, 100);
    assert_eq!(connection.request(USER).unwrap().status, 201);
    assert_eq!(connection.request(wire::get("/livez")).unwrap().status, 200);

    let mut connection = service.connect();
    let reply = connection.request(wire::post_framed(&[&asking(65_537)], "")).unwrap();
    assert_eq!(reply.problem(413).0, "body-too-large");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(connection.rest().unwrap(), "");

    // Sent with its body at once.
    let mut connection = service.connect();
    connection.send(wire::post_framed(&[&asking(USER.len())], USER)).unwrap();
    connection.half_close().unwrap();
    let last = statuses(&connection.rest().unwrap());
    assert!(last == [100, 409] || last == [409], "{last:?}");
    for expectation in ["something", "200-ok", "100-continue, something"] {
        let headers = [format!("Content-Length: {}", USER.len()), format!("Expect: {expectation}")];
        let answers = answers(&service, wire::post_framed(&headers.each_ref().map(String::as_str), USER));
        assert!(answers == [417] || answers == [409], "{expectation}: {answers:?}");
    }
}

#[test]
fn a_client_that_sends_too_much_reads_413_in_100_of_100_runs() {
    let service = with_a_user(aot());
    let file = service.folder().join("large");
    fs::write(&file, vec![0; 20_000_000]).unwrap();
    let variants: [&[&str]; 4] = [
        &["Expect: 100-continue"],
        &["Expect:"],
        &["Expect:", "Transfer-Encoding: chunked"],
        &["Expect: 100-continue", "Transfer-Encoding: chunked"],
    ];
    for run in 0..100 {
        let headers = variants[run % variants.len()];
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "--max-time", "20", "-H", "Content-Type: application/json"]);
        curl.args(headers.iter().flat_map(|header| ["-H", header]));
        curl.arg("--data-binary").arg(format!("@{}", file.display()));
        let output = curl.arg(format!("http://{}/api/users", service.address())).output().expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "run {run} {headers:?}: {error} {text}");
        let statuses = statuses(&text);
        assert_eq!(statuses.last(), Some(&413), "run {run} {headers:?}: {text}");
        // Of a chunked body nobody knows beforehand that it is too large.
        assert!(statuses.len() == 1 || headers.len() == 2, "run {run} {headers:?}: {text}");
    }
    assert_eq!(service.get("/api/users/1").status, 200);
}

fn what_follows_too_large_a_body_is_never_a_request(runtime: Runtime) {
    let service = with_a_user(Service::builder(runtime));
    let flood = SMUGGLED.repeat(5000);
    for framing in [
        format!("Content-Length: {}", flood.len()),
        "Content-Length: 65537".into(),
        "Transfer-Encoding: chunked".into(),
    ] {
        let mut connection = service.connect();
        let begun = if framing.starts_with('T') { "30000\r\n" } else { "" };
        connection.send(wire::post_framed(&[&framing], begun)).unwrap();
        // The client goes on for as long as it can, before and after the answer.
        connection.send(&flood).unwrap();
        let reply = connection.reply().unwrap();
        assert_eq!((reply.status, reply.header("connection")), (413, Some("close")), "{framing}");
        connection.send(&flood).unwrap();
        connection.half_close().unwrap();
        assert_eq!(connection.rest().unwrap(), "", "{framing}");
        assert_eq!(service.get("/api/users/1").status, 200, "{framing}");
    }
    service.at_rest();
}

#[test]
fn a_head_that_is_too_large_is_refused_without_being_read_whole() {
    let service = with_a_user(aot());
    let before = service.at_rest();
    let field = |n: usize| format!("X-{n}: {}\r\n", "y".repeat(40));
    let flood = |fields: usize| (0..fields).map(field).collect::<String>();
    let many_small: String = (0..200).map(|n| format!("X{n}: y\r\n")).collect();
    let heads = [
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many_small}\r\n"), vec![431]),
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", flood(20_000)), vec![431]),
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)), vec![431]),
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}: y\r\n\r\n", "X".repeat(1 << 20)), vec![400, 431]),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(40_000)), vec![414, 431]),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000)), vec![414, 431]),
        (format!("GET /livez?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a=b&".repeat(1 << 18)), vec![414, 431]),
        (format!("{} /livez HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(1 << 20)), vec![400, 414, 431]),
    ];
    none_wrong(heads, |(head, right)| {
        let answers = answers(&service, &head);
        let shown: String = head.chars().take(60).collect();
        (answers.len() != 1 || !right.contains(&answers[0])).then(|| format!("{shown:?}: {answers:?}"))
    });
    // A hundred fields, and twelve thousand bytes, are a head like any other.
    let reply = service.raw(format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", flood(90)));
    assert_eq!(statuses(&reply), [200]);
    let long = format!("GET /livez?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(12_000));
    assert_eq!(statuses(&service.raw(long)), [200]);
    let grown = service.usage().memory_kib.saturating_sub(before.memory_kib);
    assert!(grown < 16 << 10, "{grown} KiB more");
    service.at_rest();
}

#[test]
fn what_is_not_http_is_refused_or_closed_within_the_time_for_a_head() {
    let service = aot().env("HEAD_TIMEOUT", "1s").start();
    let hello =
        b"\x16\x03\x01\x00\x75\x01\x00\x00\x71\x03\x03\x5b\x90\x9d\x9b\x72\x0b\xbc\x0c\xbc\x2b\x92\xa8\x48\x97\xcf";
    let inputs: [&[u8]; 24] = [
        hello,
        b"\x80\x2e\x01\x00\x02",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO x\r\nMAIL FROM:<a@x.org>\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"GET /livez\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\0\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX\0: y\r\n\r\n",
        b"GET /livez HTTP/1.1\rHost: x\r\r",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX\xe9: z\r\n\r\n",
        b"\r\r\r\r",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"{\"name\":\"n\"}\r\n\r\n",
    ];
    none_wrong(inputs, |input| {
        let started = Instant::now();
        let answers = statuses(&service.raw(input));
        let took = started.elapsed();
        let right = (answers.is_empty() || answers == [400]) && took < Duration::from_secs(6);
        (!right).then(|| format!("{answers:?} in {took:?} to {}", input.escape_ascii()))
    });
    service.assert_alive();
}

/// RFC 9112 §2.2: a line may be taken to end at a bare line feed. Whether it is or not, all of it
/// is one request and nothing hangs.
#[test]
fn bare_line_feeds_end_lines_or_are_refused() {
    let service = aot().env("HEAD_TIMEOUT", "1s").start();
    for input in [
        "GET /livez HTTP/1.1\nHost: x\nConnection: close\n\n",
        "GET /livez HTTP/1.1\r\nHost: x\nConnection: close\r\n\n",
    ] {
        let answers = statuses(&service.raw(input));
        assert!(answers == [400] || answers == [200], "{input:?}: {answers:?}");
    }
    let hidden = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: y\n\n{SMUGGLED}");
    let service = with_a_user(aot());
    assert!(answers(&service, hidden).len() <= 2);
    service.assert_alive();
}

#[test]
fn an_answer_says_what_it_is() {
    let service = with_a_user(aot());
    for (target, content_type) in [
        ("/livez", "text/plain; charset=utf-8"),
        ("/api/users", "application/json"),
        ("/api/users/1", "application/json"),
        ("/nowhere", "application/problem+json"),
    ] {
        let reply = service.connect().request(wire::get(target)).unwrap();
        assert_eq!(reply.header("content-type"), Some(content_type), "{target}");
        assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")), "{target}: {reply:?}");
    }
}
